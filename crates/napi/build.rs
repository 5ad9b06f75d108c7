#![allow(missing_docs)]

fn main() {
    napi_build::setup();
    if std::env::var_os("CARGO_FEATURE_CUDA").is_some() {
        // CUDA's libraries may lie beside the addon
        println!("cargo:rustc-cdylib-link-arg=-Wl,-rpath,$ORIGIN/lib");
    }
}
