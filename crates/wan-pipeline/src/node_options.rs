//! What graphs can ask for and the command line cannot.

use serde::{Deserialize, Serialize};
use wan_clip::ImageFit;

use crate::{PipelineError, PromptSyntax, Result};

/// What only the nodes of a ComfyUI graph ask for. The default is what the command line does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeOptions {
    /// How the prompt is read.
    pub prompt_syntax: PromptSyntax,
    /// How the image encoder's square is filled.
    pub image_fit: ImageFit,
    /// Factor on the first latent frame of the condition, the encoded image.
    pub first_latent_strength: f64,
    /// Factor on its last latent frame, whether or not there is an end image.
    pub last_latent_strength: f64,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            prompt_syntax: PromptSyntax::default(),
            image_fit: ImageFit::default(),
            first_latent_strength: 1.0,
            last_latent_strength: 1.0,
        }
    }
}

impl NodeOptions {
    /// Errors: [`PipelineError::Request`] for a factor that is no number.
    pub(crate) fn check(&self) -> Result<()> {
        let factors = [
            ("start-latent-strength", self.first_latent_strength),
            ("end-latent-strength", self.last_latent_strength),
        ];
        match factors.into_iter().find(|(_, factor)| !factor.is_finite()) {
            Some((field, factor)) => Err(PipelineError::request(field, factor, "a finite number")),
            None => Ok(()),
        }
    }
}
