use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::report::parse as parse_report;

/// Ops of which only portable kernels are used.
static PORTABLE_ONLY: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

/// Leaves out an op's kernels that are for one architecture alone, on GPUs that are opened from now on: what they would do
/// the portable ones do, more slowly. `op`: what the names of its kernel files begin with.
pub fn use_portable_kernels(op: &'static str) {
    PORTABLE_ONLY.lock().unwrap_or_else(PoisonError::into_inner).push(op);
}

/// What an image runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Machine code for a compute capability (major, minor) and later ones of the same major number, but for 8.7; for
    /// 9.0, whose code uses instructions of that chip alone, for no other.
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

impl Image {
    /// The op, if the image is for one architecture alone and there are portable kernels beside it.
    pub fn special_to(&self) -> Option<&'static str> {
        self.file.strip_suffix("_sm90").and_then(|name| name.split('_').next())
    }

    /// Its kernels' names.
    pub fn kernels(&self) -> Box<dyn Iterator<Item = &'static str>> {
        match self.target {
            Target::Cubin(..) => Box::new(parse_report(self.report).into_iter().map(|report| report.kernel)),
            Target::Ptx => {
                let text = std::str::from_utf8(self.bytes).unwrap_or_default();
                Box::new(
                    text.split(".entry ").skip(1).filter_map(|rest| Some(rest.split_once('(')?.0.trim())),
                )
            }
        }
    }
}

/// Every image of this build.
pub static IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/images.rs"));

impl Target {
    /// Whether a GPU of capability (major, minor) can run it.
    pub fn runs_on(self, (major, minor): (u32, u32)) -> bool {
        match self {
            Self::Cubin(9, 0) => (major, minor) == (9, 0),
            // Jetson Orin; machine code for other GPUs is not promised to run on it.
            Self::Cubin(..) if (major, minor) == (8, 7) => false,
            Self::Cubin(of, from) => of == major && from <= minor,
            Self::Ptx => major >= 8,
        }
    }
}

/// The best image of every kernel file for a GPU: machine code of the nearest capability below, else PTX.
pub fn images_for(capability: (u32, u32)) -> Vec<&'static Image> {
    let mut best: Vec<&'static Image> = Vec::new();
    let portable_only = PORTABLE_ONLY.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = |image: &&Image| {
        image.target.runs_on(capability) && !image.special_to().is_some_and(|op| portable_only.contains(&op))
    };
    for image in IMAGES.iter().filter(wanted) {
        match best.iter_mut().find(|other| other.file == image.file) {
            Some(other) if rank(image.target) > rank(other.target) => *other = image,
            Some(_) => {}
            None => best.push(image),
        }
    }
    best
}

/// The ops of which a GPU of this capability has kernels that are for its architecture alone, unless they are left out.
pub fn special_ops(capability: (u32, u32)) -> BTreeSet<&'static str> {
    images_for(capability).into_iter().filter_map(Image::special_to).collect()
}

/// Differs between builds whose kernels do.
pub const KERNELS_DIGEST: &str = env!("WAN_RUN_KERNELS_DIGEST");

/// What this build has images for, in words.
pub(super) fn built_for() -> String {
    let mut names: Vec<String> = Vec::new();
    for image in IMAGES {
        let name = match image.target {
            Target::Cubin(major, minor) => format!("{major}.{minor}"),
            Target::Ptx => "any from 8.0 on".into(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

fn rank(target: Target) -> u32 {
    match target {
        Target::Ptx => 0,
        Target::Cubin(major, minor) => 100 * major + minor,
    }
}
