# fusedx: the library with the C interface, and what is installed with it; where OpenVINO's C++ runtime is found.
#   -DOpenVINO_DIR=.../openvino/cmake    the wheel of PyPI holds one
#   -DFUSEDX_RPATH=...                   where the built library looks for OpenVINO first, as the Python package's wheel asks
#   -DFUSEDX_LIBRARY=OFF                 the Python module alone
option(FUSEDX_LIBRARY "Build libfusedx" ON)
if(NOT FUSEDX_LIBRARY)
  return()
endif()
find_package(OpenVINO QUIET COMPONENTS Runtime)
if(NOT OpenVINO_FOUND)
  message(STATUS "OpenVINO's C++ runtime not found (OpenVINO_DIR): building without libfusedx")
  return()
endif()

add_library(fusedx SHARED ${INTERFACE_SOURCES} engine/encoder_openvino.cpp)
target_include_directories(fusedx PUBLIC
  $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
target_include_directories(fusedx PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
# OpenVINO's headers name their own place in messages; the builder's folders are not for everyone.
get_filename_component(OPENVINO_ROOT ${OpenVINO_DIR} DIRECTORY)
target_compile_options(fusedx PRIVATE -fmacro-prefix-map=${OPENVINO_ROOT}/= -fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=)
target_link_libraries(fusedx PRIVATE fusedx_engine openvino::runtime)
set_target_properties(fusedx PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} EXPORT_NAME fusedx
  INSTALL_RPATH "$ORIGIN" LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/fusedx.map)
if(FUSEDX_RPATH)
  set_target_properties(fusedx PROPERTIES INSTALL_RPATH "$ORIGIN:${FUSEDX_RPATH}" BUILD_WITH_INSTALL_RPATH ON)
endif()
target_link_options(fusedx PRIVATE
  -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/fusedx.map -Wl,--exclude-libs,ALL -Wl,--no-undefined -Wl,-z,now -Wl,-z,relro)

include(cmake/install.cmake)
