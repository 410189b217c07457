use crate::sources::Sources;

/// Compiles the kernels and the emulation of blocks and threads for the host.
pub fn compile(sources: &Sources) {
    let mut build = cc::Build::new();
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        build.flag("-mfma");
    }
    build
        .cpp(true)
        .std("c++17")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .flag("-Wno-unknown-pragmas")
        // As nvcc does: a product and a sum are rounded once.
        .flag("-ffp-contract=fast")
        // Tests run these in debug builds too, and emulation is slow enough.
        .opt_level(2)
        .define("WAN_SHIM", None)
        .define("WAN_SHIM_DIGEST", format!("\"{}\"", sources.digest()).as_str())
        .include(&sources.root)
        // `.cu` is no extension the host's compiler knows.
        .flag("-xc++")
        // Kernels are found by name at run time: nothing refers to their object files.
        .link_lib_modifier("+whole-archive")
        .file(sources.root.join("shim/runtime.cpp"))
        .file(sources.root.join("shim/hopper.cpp"))
        .file(sources.root.join("shim/selftest.cu"))
        .file(sources.root.join("shim/selftest_sm90.cu"))
        .files(&sources.files)
        .compile("wan_shim");
}
