# One CMake target a room. A room's target names the rooms below it, and nothing else is on its include path but
# the project root; tests/lint/arrows checks that the #include lines say the same.
include(GNUInstallDirs)
find_package(Threads REQUIRED)

set(HEAPTIER_WARNINGS -Wall -Wextra -Wpedantic -Werror -Wconversion)
set(HEAPTIER_SANITIZE "" CACHE STRING "address,undefined or thread: for the unit tests")
if(HEAPTIER_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # Instrumented code looks uninitialised to g++ where it is not (its manual says so); the release build still
  # warns. And TSan does not see fences: what they order here is held in atomics, so no race is reported falsely.
  list(APPEND HEAPTIER_WARNINGS -Wno-maybe-uninitialized)
  if(HEAPTIER_SANITIZE STREQUAL "thread")
    list(APPEND HEAPTIER_WARNINGS -Wno-tsan)
  endif()
endif()

# A room of the library: no exceptions, no RTTI, hidden symbols.
function(heaptier_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;USES" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${HEAPTIER_WARNINGS} -fno-exceptions -fno-rtti
                         -fvisibility=hidden -fno-omit-frame-pointer
                         -ftls-model=initial-exec)
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
  target_link_libraries(${name} PUBLIC ${ARG_USES} Threads::Threads)
  if(HEAPTIER_SANITIZE)
    # vptr would look for type information that the rooms, built without RTTI, do not have.
    target_compile_options(${name} PUBLIC -fsanitize=${HEAPTIER_SANITIZE} -fno-sanitize=vptr)
    target_link_options(${name} PUBLIC -fsanitize=${HEAPTIER_SANITIZE})
  endif()
endfunction()

# All unit tests and nothing else: what the sanitizer builds compile (tests/sanitizer).
add_custom_target(heaptier_unit_tests)

# A GoogleTest program: heaptier_test(name LABEL unit|kernel|... SOURCES ... USES ...).
function(heaptier_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;USES" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(HEAPTIER_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 5")  # TSan costs that much
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${HEAPTIER_WARNINGS} -Wno-error=pedantic)
  if(HEAPTIER_SANITIZE MATCHES "undefined")
    # The checks in GoogleTest's templates take most of such a build; what is tested is optimized more.
    target_compile_options(${name} PRIVATE -Og)
  endif()
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
  target_link_libraries(${name} PRIVATE ${ARG_USES} GTest::gtest GTest::gtest_main Threads::Threads)
  add_test(NAME ${ARG_LABEL}.${name} COMMAND ${name})
  set_tests_properties(${ARG_LABEL}.${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT}
                       SKIP_RETURN_CODE 77)
  if(ARG_LABEL STREQUAL "unit")
    add_dependencies(heaptier_unit_tests ${name})
  endif()
endfunction()
