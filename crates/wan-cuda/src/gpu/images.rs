/// What an image runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Machine code for a compute capability (major, minor) and later ones of the same major number; for 9.0, whose
    /// code uses instructions of that chip alone, for no other.
    Cubin(u32, u32),
    /// PTX for compute capability 8.0, which the driver compiles for any later GPU.
    Ptx,
}

/// One compiled kernel file.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// Its name without the extension.
    pub file: &'static str,
    /// What it runs on.
    pub target: Target,
    /// A cubin, or PTX text.
    pub bytes: &'static [u8],
    /// What the assembler said: registers, spills and shared memory of each kernel.
    pub report: &'static str,
}

/// Every image of this build.
pub static IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/images.rs"));

impl Target {
    /// Whether a GPU of capability (major, minor) can run it.
    pub fn runs_on(self, (major, minor): (u32, u32)) -> bool {
        match self {
            Self::Cubin(9, 0) => (major, minor) == (9, 0),
            Self::Cubin(of, from) => of == major && from <= minor,
            Self::Ptx => major >= 8,
        }
    }
}

/// The best image of every kernel file for a GPU: machine code of the nearest capability below, else PTX.
pub fn images_for(capability: (u32, u32)) -> Vec<&'static Image> {
    let mut best: Vec<&'static Image> = Vec::new();
    for image in IMAGES.iter().filter(|image| image.target.runs_on(capability)) {
        match best.iter_mut().find(|other| other.file == image.file) {
            Some(other) if rank(image.target) > rank(other.target) => *other = image,
            Some(_) => {}
            None => best.push(image),
        }
    }
    best
}

fn rank(target: Target) -> u32 {
    match target {
        Target::Ptx => 0,
        Target::Cubin(major, minor) => 100 * major + minor,
    }
}
