# What `cmake --install` puts into a prefix: the library, its headers, and find_package(execnet).
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/execnet)
install(TARGETS execnet EXPORT execnetTargets COMPONENT library)
install(DIRECTORY include/execnet DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library FILES_MATCHING PATTERN "*.hpp")
install(EXPORT execnetTargets NAMESPACE execnet:: DESTINATION ${package_dir} COMPONENT library)

write_basic_package_version_file(${PROJECT_BINARY_DIR}/execnetConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES cmake/execnetConfig.cmake ${PROJECT_BINARY_DIR}/execnetConfigVersion.cmake DESTINATION ${package_dir}
        COMPONENT library)
