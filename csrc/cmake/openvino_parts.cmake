# The parts of OpenVINO that run the encoder on processors, found beside libopenvino: its core, the reader of ONNX models, the
# CPU plug-in, oneTBB with its helpers, and hwloc under them.
get_target_property(OPENVINO_FILE openvino::runtime LOCATION)
get_filename_component(OPENVINO_FILE ${OPENVINO_FILE} REALPATH)
get_filename_component(OPENVINO_LIBS ${OPENVINO_FILE} DIRECTORY)

set(PARTS)
foreach(PATTERN libopenvino.so.* libopenvino_onnx_frontend.so.* libopenvino_intel_cpu_plugin.so libtbb.so.* libtbbmalloc.so.* libtbbbind_2_5.so.*
        libhwloc.so.* plugins.xml)
  file(GLOB FOUND ${OPENVINO_LIBS}/${PATTERN})
  list(APPEND PARTS ${FOUND})
endforeach()
foreach(NEEDED libopenvino.so libopenvino_onnx_frontend.so libopenvino_intel_cpu_plugin.so)
  if(NOT "${PARTS}" MATCHES "${NEEDED}")
    message(STATUS "${NEEDED} is not in ${OPENVINO_LIBS}: the archive will need an installed OpenVINO")
  endif()
endforeach()
install(PROGRAMS ${PARTS} DESTINATION ${LIB})

# Texts of OpenVINO's licence and of what it contains: in a wheel's metadata, or in docs/licensing of its archives.
file(GLOB LICENCES
  ${OPENVINO_LIBS}/../../openvino-${OpenVINO_VERSION}*.dist-info/licenses/LICENSE
  ${OPENVINO_LIBS}/../../openvino-${OpenVINO_VERSION}*.dist-info/licenses/licensing/*
  ${OPENVINO_LIBS}/../../../../docs/licensing/*)
if(NOT LICENCES)
  message(STATUS "OpenVINO's licence texts were not found; an archive that is given away must hold them")
endif()
install(FILES ${LICENCES} DESTINATION ${DOC}/openvino)

# For the SBOM: their makers' own version texts inside the libraries.
function(version_in PATTERN REGEX OUT)
  file(GLOB FILE ${OPENVINO_LIBS}/${PATTERN})
  set(${OUT} NOASSERTION PARENT_SCOPE)
  if(FILE)
    file(STRINGS ${FILE} TEXT REGEX "${REGEX}" LIMIT_COUNT 1)
    if(TEXT MATCHES "([0-9]+\\.[0-9]+\\.[0-9]+[^ \t]*)")
      set(${OUT} ${CMAKE_MATCH_1} PARENT_SCOPE)
    endif()
  endif()
endfunction()
version_in("libtbb.so.*" "oneTBB: VERSION" TBB_VERSION_FOUND)
version_in("libhwloc.so.*" "^[0-9]+\\.[0-9]+\\.[0-9]+[a-z0-9.-]*$" HWLOC_VERSION_FOUND)
