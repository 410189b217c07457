//! Launches on an NVIDIA GPU, on the stream of candle's device.

mod images;

pub use images::{IMAGES, Image, Target};
