#pragma once

extern "C" {
int early_library_is_whole();
void* early_library_gives(unsigned long bytes);
char* early_library_thread_local();
}
