use wan_media::RgbImage;

/// The images of a job. A text-to-video job has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Images<'a> {
    /// The video's first frame.
    pub first: Option<&'a RgbImage>,
    /// Its last frame, for models that make what lies between two.
    pub last: Option<&'a RgbImage>,
    /// What the image encoder sees in place of `first`, such as the whole of an image that the video crops.
    pub seen_first: Option<&'a RgbImage>,
    /// What it sees in place of `last`.
    pub seen_last: Option<&'a RgbImage>,
}

impl<'a> Images<'a> {
    /// What the image encoder sees, one for each image of the job.
    pub(crate) fn seen(&self) -> impl Iterator<Item = &'a RgbImage> {
        let pairs = [(self.first, self.seen_first), (self.last, self.seen_last)];
        pairs.into_iter().filter_map(|(frame, seen)| frame.map(|frame| seen.unwrap_or(frame)))
    }
}

impl<'a> From<Option<&'a RgbImage>> for Images<'a> {
    fn from(first: Option<&'a RgbImage>) -> Self {
        Self { first, ..Self::default() }
    }
}
