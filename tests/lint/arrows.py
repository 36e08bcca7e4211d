"""Law 1: arrows point down. preload -> runtime -> {uffd, policies, runtime/os} -> runtime/base.

A file may include its own room and the rooms below it. Rooms of one rank do not know each other. Quoted includes
name project files from the root (or the public header as a user would: "heaptier/heaptier.h")."""

from project import ROOMS, includes

# The first prefix that fits is the room. A room may include itself and what is listed.
_BASE = {"runtime/base"}
_BELOW_RUNTIME = {"runtime/base", "runtime/os", "uffd", "policies", "runtime/include"}
MAY_INCLUDE = {
    "runtime/base": set(),
    "runtime/include": set(),
    "runtime/os": _BASE,
    "uffd": _BASE,
    "policies": _BASE,
    "runtime": _BELOW_RUNTIME,
    "preload": _BELOW_RUNTIME | {"runtime"},
}


def room_of(path):
    return next((room for room in MAY_INCLUDE if path.startswith(room + "/")), None)


def target_of(tree, name):
    """The project file that an include names, or None."""
    for candidate in (name, "runtime/include/" + name):
        if room_of(candidate) and tree.exists(candidate):
            return candidate
    return None


def check(tree):
    problems = []
    for path in tree.cxx_files(*ROOMS):
        room = room_of(path)
        for line, name, quoted in includes(tree.read(path)):
            target = target_of(tree, name)
            if target is None:
                if quoted:
                    problems.append(f'{path}:{line}: "{name}" is no project file named from the root')
                continue
            below = room_of(target)
            if below != room and below not in MAY_INCLUDE[room]:
                problems.append(f"{path}:{line}: {room}/ must not include {target} (arrows point down)")
    return problems
