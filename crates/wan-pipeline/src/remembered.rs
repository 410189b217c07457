//! What the encoders made, kept for the next job on the same model.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use candle_core::Tensor;
use sha2::{Digest, Sha256};
use wan_clip::ImageFit;
use wan_media::RgbImage;

use crate::Plan;

/// Prompts: the embeddings of the longest take 8 MB.
const TEXTS: usize = 32;
/// Images: 1.3 MB each.
const IMAGES: usize = 32;
/// Conditions: 10 MB at 832x480 and 81 frames.
const CONDITIONS: usize = 4;

/// Results of a model's encoders by what they were made from, the last ones of each. In memory only: they are cheap
/// beside denoising, and prompts are nobody else's business.
pub(crate) struct Remembered {
    /// Text embeddings by prompt.
    pub text: Recent<String>,
    /// Image embeddings, before their strength.
    pub image: Recent<(ImageKey, ImageFit)>,
    /// Masks and image latents.
    pub condition: Recent<ConditionKey>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { text: Recent::new(TEXTS), image: Recent::new(IMAGES), condition: Recent::new(CONDITIONS) }
    }
}

/// An image by its size and its pixels' SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageKey {
    size: (u32, u32),
    sha256: [u8; 32],
}

impl From<&RgbImage> for ImageKey {
    fn from(image: &RgbImage) -> Self {
        Self { size: (image.width(), image.height()), sha256: Sha256::digest(image.data()).into() }
    }
}

/// Everything that the condition of a job depends on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConditionKey {
    first: ImageKey,
    last: Option<ImageKey>,
    size: (usize, usize, usize),
    latent_strength: f64,
    /// Factors on the first and the last latent frame.
    ends: (f64, f64),
    /// Strength of the noise on the image and its seed, where there is any.
    noise: Option<(f64, u64)>,
}

impl ConditionKey {
    /// The key of `plan` on these images.
    pub fn new(plan: &Plan, first: &RgbImage, last: Option<&RgbImage>) -> Self {
        let request = &plan.request;
        let strength = request.noise_aug_strength;
        Self {
            first: first.into(),
            last: last.map(ImageKey::from),
            size: (plan.width, plan.height, plan.frames),
            latent_strength: request.latent_strength,
            ends: (request.nodes.first_latent_strength, request.nodes.last_latent_strength),
            noise: (strength > 0.0).then_some((strength, request.seed)),
        }
    }
}

/// Tensors by key; beyond its capacity the one that was used least recently goes.
pub(crate) struct Recent<K> {
    capacity: usize,
    entries: Mutex<VecDeque<(K, Tensor)>>,
}

impl<K: PartialEq> Recent<K> {
    fn new(capacity: usize) -> Self {
        Self { capacity, entries: Mutex::default() }
    }

    /// What is kept under `key`, else what `make` gives, which is kept if it is no error.
    pub fn get_or_make<E>(&self, key: K, make: impl FnOnce() -> Result<Tensor, E>) -> Result<Tensor, E> {
        if let Some(tensor) = self.get(&key) {
            return Ok(tensor);
        }
        let tensor = make()?;
        self.put(key, tensor.clone());
        Ok(tensor)
    }

    /// Keeps `tensor` under a key that nothing is kept under.
    pub fn put(&self, key: K, tensor: Tensor) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back((key, tensor));
        if entries.len() > self.capacity {
            entries.pop_front();
        }
    }

    /// What is kept under `key`.
    pub fn get(&self, key: &K) -> Option<Tensor> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let index = entries.iter().position(|(k, _)| k == key)?;
        let entry = entries.remove(index)?;
        let tensor = entry.1.clone();
        entries.push_back(entry);
        Some(tensor)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn each_is_made_once_and_the_least_recently_used_goes() {
        let recent = Recent::new(2);
        let made = std::cell::RefCell::new(Vec::new());
        let get = |key: &'static str| {
            let make = || -> candle_core::Result<Tensor> {
                made.borrow_mut().push(key);
                Tensor::new(key.len() as f32, &Device::Cpu)
            };
            recent.get_or_make(key, make).unwrap().to_scalar::<f32>().unwrap()
        };
        assert_eq!((get("a"), get("bb"), get("a")), (1.0, 2.0, 1.0));
        get("ccc"); // `bb` goes
        get("a");
        get("bb");
        assert_eq!(*made.borrow(), ["a", "bb", "ccc", "bb"]);
        assert!(recent.get_or_make("d", || Err(())).is_err());
        assert!(recent.get(&"d").is_none(), "what failed is not kept");
    }
}
