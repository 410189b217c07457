//! Files compiled into the program.

/// Aligns included bytes, so that f32 weights can be read in place.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

macro_rules! embedded_files {
    ($($path:literal),+ $(,)?) => {
        &[$((
            $path,
            {
                static FILE: &Aligned<[u8]> =
                    &Aligned(*include_bytes!(concat!("../../../models/", $path)));
                &FILE.0
            },
        )),+]
    };
}

/// Files of the `models` folder, by their path in it.
static FILES: &[(&str, &[u8])] = embedded_files![
    "tiny.toml",
    "wan2.1-flf2v-14b-720p-f16.toml",
    "wan2.1-flf2v-14b-720p-fp8.toml",
    "wan2.1-i2v-14b-480p-bf16.toml",
    "wan2.1-i2v-14b-480p-f32.toml",
    "wan2.1-i2v-14b-480p-fp8-scaled.toml",
    "wan2.1-i2v-14b-480p-fp8.toml",
    "wan2.1-i2v-14b-720p-bf16.toml",
    "wan2.1-i2v-14b-720p-fp8-scaled.toml",
    "wan2.1-i2v-14b-720p-fp8.toml",
    "wan2.1-t2v-1.3b.toml",
    "wan2.1-t2v-14b-bf16.toml",
    "wan2.1-t2v-14b-fp8-scaled.toml",
    "lora/lightx2v-i2v-14b-480p.toml",
    "lora/lightx2v-t2v-14b.toml",
    "latent_rgb/wan2.1.toml",
    "tiny/latent_rgb.toml",
    "tiny/dit.safetensors",
    "tiny/vae.safetensors",
    "tiny/umt5.safetensors",
    "tiny/clip.safetensors",
    "tiny/tokenizer.json",
    "tiny/sample.png",
];

/// Contents of an embedded file.
pub fn file(path: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
}

/// Text of the embedded descriptions of models and LoRAs, with their file names.
pub fn descriptions() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    FILES
        .iter()
        .filter(|(name, _)| name.ends_with(".toml") && (!name.contains('/') || name.starts_with("lora/")))
        .copied()
}
