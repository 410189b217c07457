use wan_core::{Dialect, Result, WeightSet, WeightsError};

/// A part of a model that has a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Diffusion transformer.
    Dit,
    /// UMT5 text encoder.
    TextEncoder,
    /// CLIP vision tower.
    ImageEncoder,
    /// Video autoencoder.
    Vae,
}

impl Component {
    /// All components.
    pub const ALL: [Self; 4] = [Self::Dit, Self::TextEncoder, Self::ImageEncoder, Self::Vae];

    /// The namings in which its files are known.
    pub fn dialects(self) -> &'static [Dialect] {
        match self {
            Self::Dit => wan_dit::DIALECTS,
            Self::TextEncoder => wan_umt5::names::DIALECTS,
            Self::ImageEncoder => wan_clip::names::DIALECTS,
            Self::Vae => wan_vae::DIALECTS,
        }
    }

    /// With its article, for messages.
    fn described(self) -> &'static str {
        match self {
            Self::Dit => "a diffusion transformer (DiT)",
            Self::TextEncoder => "a UMT5 text encoder",
            Self::ImageEncoder => "a CLIP image encoder",
            Self::Vae => "a VAE",
        }
    }
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dit => "dit",
            Self::TextEncoder => "text encoder",
            Self::ImageEncoder => "image encoder",
            Self::Vae => "vae",
        })
    }
}

/// What a set of weights was found to be.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// The component.
    pub component: Component,
    /// The naming of its tensors.
    pub dialect: &'static Dialect,
}

/// Tells by the tensors' names which component `weights` are, if any.
pub fn identify(weights: &WeightSet) -> Option<Identity> {
    Component::ALL.into_iter().find_map(|component| {
        let dialect = component.dialects().iter().find(|d| d.matches(weights))?;
        Some(Identity { component, dialect })
    })
}

/// Checks that `weights` are `component`.
///
/// Errors: [`WeightsError::Format`] saying what they are instead. Weights that are nothing known pass: opening
/// them names the tensors looked for.
pub fn expect(weights: &WeightSet, component: Component) -> Result<()> {
    let found = match identify(weights) {
        Some(identity) if identity.component != component => identity.component.described(),
        None if is_lora(weights) => "a LoRA, which changes a DiT and is none itself",
        _ => return Ok(()),
    };
    let reason = format!("this is {found}; expected {}", component.described());
    Err(WeightsError::Format { label: weights.label().to_string(), reason }.into())
}

/// Whether the tensors are low-rank changes of other weights.
pub(crate) fn is_lora(weights: &WeightSet) -> bool {
    const ENDS: [&str; 4] = [".lora_down.weight", ".lora_A.weight", ".lora_up.weight", ".lora_B.weight"];
    weights.names().any(|name| ENDS.iter().any(|end| name.ends_with(end)))
}
