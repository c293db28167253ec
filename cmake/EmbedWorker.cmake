# Compresses worker.py at build time and compiles the bytes into a target, as
# execnet::transport::worker_source_gz() of src/transport/worker_source.hpp.
set(EXECNET_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_DIR}/embed_worker_script.cmake)

function(execnet_embed_worker target worker)
  set(output ${CMAKE_CURRENT_BINARY_DIR}/worker_source.cpp)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${worker} -DOUTPUT=${output} -P ${EXECNET_EMBED_SCRIPT}
    DEPENDS ${worker} ${EXECNET_EMBED_SCRIPT}
    COMMENT "Embedding worker.py"
    VERBATIM)
  target_sources(${target} PRIVATE ${output})
endfunction()
