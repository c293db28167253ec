# execnet_join_worker(file): a rule that joins the modules of worker/execnet_worker to one source, as it is sent.
set(EXECNET_JOIN_SCRIPT ${CMAKE_CURRENT_LIST_DIR}/join_worker_script.cmake)
set(EXECNET_WORKER_DIR ${CMAKE_CURRENT_LIST_DIR}/../worker/execnet_worker)

# Each after those it imports from.
set(EXECNET_WORKER_MODULES __init__ imports system errors values frames trace locks incoming channels sources deflating connection
    processes fork_servers proxy guard execution ending greenlets gateway standard_streams serve)

file(GLOB worker_files RELATIVE ${EXECNET_WORKER_DIR} CONFIGURE_DEPENDS ${EXECNET_WORKER_DIR}/*.py)
list(TRANSFORM worker_files REPLACE "[.]py$" "")
set(worker_modules ${EXECNET_WORKER_MODULES})
list(SORT worker_files)
list(SORT worker_modules)
if(NOT worker_files STREQUAL worker_modules)
  message(FATAL_ERROR "The modules of the worker are ${worker_files}, but ${CMAKE_CURRENT_LIST_FILE} has ${worker_modules}")
endif()

function(execnet_join_worker output)
  list(TRANSFORM EXECNET_WORKER_MODULES REPLACE "(.+)" "${EXECNET_WORKER_DIR}/\\1.py" OUTPUT_VARIABLE modules)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_COMMAND} "-DINPUTS=${modules}" -DOUTPUT=${output} -P ${EXECNET_JOIN_SCRIPT}
    DEPENDS ${modules} ${EXECNET_JOIN_SCRIPT}
    COMMENT "Joining the worker"
    VERBATIM)
endfunction()
