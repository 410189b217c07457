use wan_media::RgbImage;

/// The images of a job. A text-to-video job has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Images<'a> {
    /// The video's first frame.
    pub first: Option<&'a RgbImage>,
    /// Its last frame, for models that make what lies between two.
    pub last: Option<&'a RgbImage>,
}

impl<'a> From<Option<&'a RgbImage>> for Images<'a> {
    fn from(first: Option<&'a RgbImage>) -> Self {
        Self { first, last: None }
    }
}
