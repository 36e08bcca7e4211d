# What `cmake --install` puts where: the command, the library, the public headers, a pkg-config file and a
# CMake package, so that both of these work for a program that links heaptier:
#   find_package(heaptier REQUIRED) ... target_link_libraries(app PRIVATE heaptier::heaptier)
#   pkg-config --cflags --libs heaptier
# The tree may be moved after installation: nothing in it names an absolute path.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(HEAPTIER_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/heaptier)

# Not target_include_directories: what is said here is all there is, whatever a room has said before.
set_target_properties(heaptier PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
  "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/runtime/include>;$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
# heaptier.hpp then calls the library rather than look for it: without a call it would not be linked at all.
target_compile_definitions(heaptier INTERFACE HEAPTIER_LINKED)
if(NOT TARGET heaptier::heaptier)
  add_library(heaptier::heaptier ALIAS heaptier)
endif()

install(TARGETS heaptier EXPORT heaptierTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS heaptier_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/runtime/include/heaptier
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")

install(EXPORT heaptierTargets NAMESPACE heaptier:: DESTINATION ${HEAPTIER_CMAKE_DIR})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/heaptierConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/heaptierConfig.cmake
                              INSTALL_DESTINATION ${HEAPTIER_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/heaptierConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/heaptierConfig.cmake
              ${PROJECT_BINARY_DIR}/heaptierConfigVersion.cmake
        DESTINATION ${HEAPTIER_CMAKE_DIR})

# pkg-config finds the prefix from where the .pc file lies: as many steps up as the library directory has.
file(RELATIVE_PATH HEAPTIER_PC_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" HEAPTIER_PC_PREFIX "${HEAPTIER_PC_PREFIX}")
configure_file(${CMAKE_CURRENT_LIST_DIR}/heaptier.pc.in ${PROJECT_BINARY_DIR}/heaptier.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/heaptier.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
