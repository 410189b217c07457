//! The published polynomials. Source: TeaCache4Wan2.1, `teacache_generate.py`.

use wan_dit::{DitConfig, ModelType};

use super::TeaCacheMode;

/// Coefficients of a polynomial, highest power first.
pub(super) type Coefficients = [f64; 5];

/// Under which model's name, which mode, which polynomial.
const PUBLISHED: [(&str, TeaCacheMode, Coefficients); 8] = [
    (
        "t2v-1.3b",
        TeaCacheMode::E,
        [2.39676752e+03, -1.31110545e+03, 2.01331979e+02, -8.29855975e+00, 1.37887774e-01],
    ),
    (
        "t2v-1.3b",
        TeaCacheMode::E0,
        [-5.21862437e+04, 9.23041404e+03, -5.28275948e+02, 1.36987616e+01, -4.99875664e-02],
    ),
    ("t2v-14b", TeaCacheMode::E, [-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404]),
    (
        "t2v-14b",
        TeaCacheMode::E0,
        [-3.03318725e+05, 4.90537029e+04, -2.65530556e+03, 5.87365115e+01, -3.15583525e-01],
    ),
    (
        "i2v-14b-480p",
        TeaCacheMode::E,
        [-3.02331670e+02, 2.23948934e+02, -5.25463970e+01, 5.87348440e+00, -2.01973289e-01],
    ),
    (
        "i2v-14b-480p",
        TeaCacheMode::E0,
        [2.57151496e+05, -3.54229917e+04, 1.40286849e+03, -1.35890334e+01, 1.32517977e-01],
    ),
    ("i2v-14b-720p", TeaCacheMode::E, [-114.36346466, 65.26524496, -18.82220707, 4.91518089, -0.23412683]),
    (
        "i2v-14b-720p",
        TeaCacheMode::E0,
        [8.10705460e+03, 2.13393892e+03, -3.72934672e+02, 1.66203073e+01, -4.17769401e-02],
    ),
];

/// The polynomial of a model, if one is published. Weights do not tell 480p from 720p: the first of `names` with either
/// does.
pub(super) fn published(
    config: &DitConfig,
    names: &[&str],
    mode: TeaCacheMode,
) -> Option<&'static Coefficients> {
    let model = match (config.model_type, config.dim, config.num_layers) {
        (ModelType::T2v, 1536, 30) => "t2v-1.3b",
        (ModelType::T2v, 5120, 40) => "t2v-14b",
        // First-and-last-frame models have none.
        (ModelType::I2v, 5120, 40) if !config.takes_end_image() => {
            names.iter().find_map(|name| match (name.contains("480"), name.contains("720")) {
                (true, false) => Some("i2v-14b-480p"),
                (false, true) => Some("i2v-14b-720p"),
                _ => None,
            })?
        }
        _ => return None,
    };
    named(model, mode)
}

fn named(model: &str, mode: TeaCacheMode) -> Option<&'static Coefficients> {
    PUBLISHED.iter().find(|(of, under, _)| *of == model && *under == mode).map(|(.., polynomial)| polynomial)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The polynomial that goes by this name.
    pub(in crate::teacache) fn of(model: &str, mode: TeaCacheMode) -> &'static Coefficients {
        named(model, mode).unwrap()
    }

    #[test]
    fn models_are_told_by_weights_and_then_by_name() {
        let i2v = DitConfig::I2V_14B;
        let of = |config: &DitConfig, names: &[&str]| published(config, names, TeaCacheMode::E);
        let is = |found: Option<&'static Coefficients>, name| {
            found.is_some() && found == named(name, TeaCacheMode::E)
        };
        assert!(is(of(&i2v, &["Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors", "x"]), "i2v-14b-480p"));
        assert!(is(
            of(&i2v, &["wan2.1_i2v_720p_14B_bf16.safetensors", "wan2.1-i2v-14b-480p"]),
            "i2v-14b-720p"
        ));
        assert!(is(of(&i2v, &["transformer", "wan2.1-i2v-14b-480p-f32"]), "i2v-14b-480p"));
        assert_eq!(of(&i2v, &["mine.safetensors", "my-model"]), None);
        assert_eq!(of(&DitConfig { image_positions: Some(514), ..i2v.clone() }, &["flf2v-720p"]), None);
        let t2v = DitConfig { model_type: ModelType::T2v, ..i2v.clone() };
        assert!(is(of(&t2v, &["any"]), "t2v-14b"));
        assert!(is(of(&DitConfig { dim: 1536, num_layers: 30, ..t2v.clone() }, &["any"]), "t2v-1.3b"));
        assert_eq!(of(&DitConfig { dim: 64, ..t2v }, &["t2v-14b"]), None);
        assert_eq!(of(&DitConfig { dim: 64, ..i2v }, &["i2v-14b-480p"]), None);
    }
}
