//! The resampler against Pillow, bit for bit.

use std::fs;
use std::path::PathBuf;

use safetensors::SafeTensors;
use wan_media::{RgbImage, resize_lanczos};

/// A tensor u8 `[height, width, 3]` as a picture.
fn picture(file: &SafeTensors<'_>, name: &str) -> RgbImage {
    let tensor = file.tensor(name).expect("the fixture has it");
    let &[height, width, 3] = tensor.shape() else { panic!("{name} is {:?}", tensor.shape()) };
    RgbImage::new(width as u32, height as u32, tensor.data().to_vec()).expect("u8 [height, width, 3]")
}

#[test]
fn every_pixel_equals_pillows() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/image");
    let mut checked = 0;
    for entry in fs::read_dir(&folder).expect("the fixtures are there") {
        let path = entry.expect("readable").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !name.starts_with("lanczos_") {
            continue;
        }
        let bytes = fs::read(&path).expect("readable");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let expected = picture(&file, "expected.image");
        let found = resize_lanczos(&picture(&file, "image"), expected.width(), expected.height());
        assert_eq!(found.expect("valid size"), expected, "{name}");
        checked += 1;
    }
    // Growing, shrinking, one axis only, both ways at once, equal size, single pixels.
    assert!(checked >= 11, "{checked} fixtures in {}", folder.display());
}
