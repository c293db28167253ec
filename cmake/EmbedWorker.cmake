# Compiles the bytes of files into a target: of Python files that are sent to the other side, of the guard.
set(EXECNET_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_DIR}/embed_worker_script.cmake)

# execnet_embed(target file NAME function HEADER header [NAMESPACE name] [GZIP]): `header` declares, in that namespace or
# the one of its folder (transport/x.hpp: execnet::transport), std::string_view function(), which gives the content of
# `file`.
function(execnet_embed target file)
  cmake_parse_arguments(PARSE_ARGV 2 embed "GZIP" "NAME;HEADER;NAMESPACE" "")
  if(NOT embed_NAMESPACE)
    cmake_path(GET embed_HEADER PARENT_PATH embed_NAMESPACE)
  endif()
  set(output ${CMAKE_CURRENT_BINARY_DIR}/${embed_NAME}.cpp)
  cmake_path(GET file FILENAME name)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${file} -DOUTPUT=${output} -DNAME=${embed_NAME} -DHEADER=${embed_HEADER}
            -DNAMESPACE=${embed_NAMESPACE} -DGZIP=${embed_GZIP} -P ${EXECNET_EMBED_SCRIPT}
    DEPENDS ${file} ${EXECNET_EMBED_SCRIPT}
    COMMENT "Embedding ${name}"
    VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
