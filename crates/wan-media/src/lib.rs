//! Images in, videos out.
//!
//! Everything here works on plain 8-bit RGB buffers; tensors, models and devices live elsewhere.
//!
//! | module | what it does |
//! |---|---|
//! | [`image`] | still images from files or bytes, with EXIF orientation, alpha handling and size limits |
//! | [`resize_lanczos`] | Lanczos resampling, bit for bit that of Pillow |
//! | [`video`] | [`VideoWriter`]: frames pushed one by one into mp4, webp, gif, png or rgb |
//! | [`metadata`] | the JSON record kept inside each output, and reading it back |
//! | [`png_file`], [`contact_sheet`], [`preview`] | single PNG files, written whole or not at all |
//! | [`probe`] | basic facts of a video and its decoded frames |
//!
//! Output files are written under a temporary name in their destination folder and renamed when
//! complete, so a reader never sees half a file; a writer that fails or is dropped removes its
//! temporary file.

#![warn(missing_docs)]

mod atomic;
pub mod contact_sheet;
mod error;
mod frame;
#[cfg(feature = "ffmpeg")]
mod graph;
pub mod image;
pub mod metadata;
pub mod png_file;
pub mod preview;
pub mod probe;
pub mod reserve;
mod resize;
pub mod video;

pub use atomic::{check_destination, remove_unfinished, write_file};
pub use contact_sheet::ContactSheet;
pub use error::{MediaError, Result};
pub use frame::{RgbImage, to_u8};
pub use image::{Alpha, decode_image, load_image, load_image_and_transparency};
pub use metadata::{METADATA_KEY, read_metadata};
pub use png_file::{write_png, write_png_with_texts};
pub use preview::write_preview;
pub use reserve::Reservation;
pub use resize::resize_lanczos;
pub use video::{FrameRate, OutputFormat, PixelFormat, VideoOptions, VideoSummary, VideoWriter};
