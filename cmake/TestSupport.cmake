# What the C++ tests and the fuzz targets share: tests/support/*.cpp but for the sanitizers' Python.
file(GLOB support CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/support/*.cpp)
list(FILTER support EXCLUDE REGEX "/sanitizer_python\\.cpp$")
add_library(execnet_test_support OBJECT ${support})
execnet_warnings(execnet_test_support)
target_compile_definitions(execnet_test_support PUBLIC EXECNET_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
target_include_directories(execnet_test_support PUBLIC ${PROJECT_SOURCE_DIR}/tests/support)
target_link_libraries(execnet_test_support PUBLIC execnet_objects)
