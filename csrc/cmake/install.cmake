# cmake --install: header, library, pkg-config, CMake package, examples; cpack: the same as a relocatable archive.
#   -DFUSEDX_BUNDLE_OPENVINO=OFF    without OpenVINO's libraries, where the system has its own
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
option(FUSEDX_BUNDLE_OPENVINO "Install the parts of OpenVINO that libfusedx needs beside it" ON)

set(LIB lib)  # not lib64 or a triplet: the archive looks the same wherever it is made
set(DOC share/doc/fusedx)
set(SOURCE ${CMAKE_CURRENT_SOURCE_DIR})

install(TARGETS fusedx EXPORT fusedxTargets LIBRARY DESTINATION ${LIB})
install(FILES ${SOURCE}/include/fusedx/fusedx.h DESTINATION include/fusedx)
install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${DOC})
install(DIRECTORY ${CMAKE_SOURCE_DIR}/examples/embed DESTINATION share/fusedx/examples PATTERN build EXCLUDE)
install(FILES ${CMAKE_SOURCE_DIR}/examples/embed/README.md DESTINATION .)

install(EXPORT fusedxTargets NAMESPACE fusedx:: DESTINATION ${LIB}/cmake/fusedx)
configure_package_config_file(${SOURCE}/cmake/fusedxConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/fusedxConfig.cmake
  INSTALL_DESTINATION ${LIB}/cmake/fusedx)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/fusedxConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fusedxConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/fusedxConfigVersion.cmake
  DESTINATION ${LIB}/cmake/fusedx)
configure_file(${SOURCE}/cmake/fusedx.pc.in ${CMAKE_CURRENT_BINARY_DIR}/fusedx.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fusedx.pc DESTINATION ${LIB}/pkgconfig)

if(FUSEDX_BUNDLE_OPENVINO)
  include(cmake/openvino_parts.cmake)
endif()

# Last, so that it sees every file as installed.
configure_file(${SOURCE}/cmake/sbom.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/sbom.cmake @ONLY)
install(SCRIPT ${CMAKE_CURRENT_BINARY_DIR}/sbom.cmake)

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_NAME fusedx)
set(CPACK_PACKAGE_VENDOR fusedx)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "DiffMIC and DiffMIC-v2 inference as a C library")
string(TOLOWER ${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR} PLATFORM)
set(CPACK_PACKAGE_FILE_NAME fusedx-${PROJECT_VERSION}-${PLATFORM})
include(CPack)
