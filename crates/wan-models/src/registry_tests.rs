use super::*;

#[test]
fn every_description_parses_and_tiny_resolves_without_a_folder() {
    let registry = Registry::builtin().unwrap();
    assert!(registry.models().len() >= 2);
    for model in registry.models() {
        let rgb = latent_rgb(model).unwrap().expect("previews for every model");
        assert_eq!(rgb.factors.len(), 16, "{}", model.name);
    }
    let tiny = registry.find("tiny").unwrap();
    let files = registry.resolve(&tiny, &Places::default()).unwrap();
    for source in [&files.dit, &files.vae, &files.text_encoder, files.image_encoder.as_ref().unwrap()] {
        assert!(source.weights().unwrap().names().count() > 10);
    }
    assert!(Registry::sample_image().starts_with(b"\x89PNG"));
}

#[test]
fn another_precision_stands_in_for_a_transformer_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str| {
        std::fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(path), b"x").unwrap();
    };
    for file in [
        "vae/wan_2.1_vae.safetensors",
        "text_encoders/umt5-xxl-enc-bf16.safetensors",
        "text_encoders/tokenizer.json",
        "clip_vision/clip_vision_h.safetensors",
    ] {
        put(file);
    }
    let registry = Registry::builtin().unwrap();
    let model = registry.find("wan2.1-i2v-14b-480p-bf16").unwrap();
    let resolved = || registry.resolve(&model, &Places::folder(dir.path())).map(|files| files.dit.name());
    let missing = resolved().unwrap_err().to_string();
    assert!(missing.contains("wan2.1_i2v_480p_14B_bf16.safetensors"), "{missing}");
    put("diffusion_models/wan/wan2.1_i2v_480p_14B_fp16.safetensors");
    assert_eq!(resolved().unwrap(), "wan2.1_i2v_480p_14B_fp16.safetensors");
    put("diffusion_models/wan2.1_i2v_480p_14B_bf16.safetensors");
    assert_eq!(resolved().unwrap(), "wan2.1_i2v_480p_14B_bf16.safetensors");
}

#[test]
fn quantised_files_stand_in_for_transformer_and_text_encoder() {
    let dir = tempfile::tempdir().unwrap();
    for file in [
        "vae/Wan2_1_VAE_bf16.safetensors",
        "unet/wan2.1-i2v-14b-480p-Q4_K_M.gguf",
        "text_encoders/umt5-xxl-encoder-Q5_K_M.gguf",
        "text_encoders/tokenizer.json",
        "clip_vision/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors",
    ] {
        std::fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(file), b"x").unwrap();
    }
    let registry = Registry::builtin().unwrap();
    let model = registry.find("wan2.1-i2v-14b-480p-fp8").unwrap();
    let files = registry.resolve(&model, &Places::folder(dir.path())).unwrap();
    assert_eq!(files.dit.name(), "wan2.1-i2v-14b-480p-Q4_K_M.gguf");
    assert_eq!(files.text_encoder.name(), "umt5-xxl-encoder-Q5_K_M.gguf");
}

#[test]
fn no_two_models_share_the_name_of_a_transformer() {
    let registry = Registry::builtin().unwrap();
    let mut names: Vec<&str> = registry.models().iter().flat_map(|model| model.files.dit.names()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn embedded_weights_are_aligned_for_f32() {
    let bytes = embedded::file("tiny/dit.safetensors").unwrap();
    assert_eq!(bytes.as_ptr().addr() % 64, 0);
}

#[test]
fn a_misspelt_name_gets_a_suggestion() {
    let registry = Registry::builtin().unwrap();
    let error = registry.find("tinny").unwrap_err().to_string();
    assert!(error.contains("did you mean `tiny`"), "{error}");
    let error = registry.find("zzz").unwrap_err().to_string();
    assert!(!error.contains("did you mean") && error.contains("known: tiny, wan2.1"), "{error}");
}

#[test]
fn the_tokenizer_is_found_beside_the_text_encoder() {
    let registry = Registry::builtin().unwrap();
    let model = registry.find("wan2.1-i2v-14b-480p-fp8").unwrap();
    for tokenizer in ["t/tokenizer.json", "t/google/umt5-xxl/tokenizer.json", "tokenizer/tokenizer.json"] {
        let dir = tempfile::tempdir().unwrap();
        let encoders = dir.path().join("text_encoders");
        let put = |path: std::path::PathBuf| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"{}").unwrap();
        };
        put(encoders.join("t/umt5-xxl-enc-bf16.safetensors"));
        put(encoders.join(tokenizer));
        let found =
            registry.locate_all(&Description::Model(Box::new(model.clone())), &Places::folder(dir.path()));
        let Some(Source::File(path)) = &found[4] else { panic!("{tokenizer}: {found:?}") };
        assert_eq!(path.canonicalize().unwrap(), encoders.join(tokenizer).canonicalize().unwrap());
    }
}

#[test]
fn loras_have_descriptions_of_their_own() {
    let registry = Registry::builtin().unwrap();
    let lora = registry.find_lora("lightx2v-i2v-14b-480p").unwrap();
    assert_eq!((lora.recipe.steps, lora.recipe.cfg), (4, 1.0));
    let error = registry.resolve_lora(&lora, &Places::default()).unwrap_err().to_string();
    assert!(error.starts_with("LoRA lightx2v-i2v-14b-480p: its file is missing (703.8 MiB): run"), "{error}");
    assert!(error.contains("wan-run models pull lightx2v-i2v-14b-480p"), "{error}");
    assert!(!error.contains("tiny"), "{error}");
    assert!(registry.find("lightx2v-i2v-14b-480p").unwrap_err().to_string().contains("expected a model"));
    assert!(registry.find_lora("tiny").unwrap_err().to_string().contains("expected a LoRA"));
}

#[test]
fn what_is_missing_is_pulled_by_the_name_or_the_users_own_file() {
    let registry = Registry::builtin().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("any name.toml");
    let text = include_str!("../../../models/wan2.1-t2v-1.3b.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    for name in ["wan2.1-t2v-1.3b", path] {
        let model = registry.find(name).unwrap();
        let error = registry.resolve(&model, &Places::default()).unwrap_err();
        let ModelsError::FilesMissing(missing) = &error else { panic!("{error}") };
        assert_eq!((missing.model.as_str(), missing.pull.as_str()), ("wan2.1-t2v-1.3b", name));
    }
}

#[test]
fn descriptions_cannot_lead_out_of_their_folder() {
    let entry = |path: &str, repo: &str| {
        let text = format!(
            "name = \"l\"\nsummary = \"\"\nmodel_type = \"i2v\"\nlicense = \"\"\n[lora]\npath = \"{path}\"\n\
             repo = \"{repo}\"\n[recipe]\nstrength = 1.0\nsteps = 4\ncfg = 1.0\n"
        );
        description("l.toml", text.as_bytes(), None).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(entry("a/b.safetensors", "o/n"), Ok(()));
    for (path, repo) in
        [("../b", "o/n"), ("/b", "o/n"), ("", "o/n"), ("b", "o"), ("b", "../n"), ("b", "o/n/x")]
    {
        let error = entry(path, repo).unwrap_err();
        assert!(error.contains("l.toml: lora: found"), "{error}");
    }
}

#[test]
fn files_are_found_in_a_comfyui_tree_and_missing_ones_are_all_named() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::builtin().unwrap();
    let model = registry.find("wan2.1-i2v-14b-480p-fp8").unwrap();
    let places = Places::folder(dir.path());
    let error = registry.resolve(&model, &places).unwrap_err().to_string();
    assert!(error.contains("umt5-xxl-enc-bf16.safetensors") && error.contains("tokenizer.json"), "{error}");
    assert!(error.contains("5 of 5 files are missing (27.8 GiB): run"), "{error}");
    assert!(!error.contains("no such folder"), "{error}");
    let nowhere = registry.resolve(&model, &Places::folder("absent")).unwrap_err().to_string();
    assert!(nowhere.contains("looked in absent (no such folder); missing: "), "{nowhere}");
    let put = |path: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"x").unwrap();
    };
    put("diffusion_models/Wan2_1-I2V-14B-480P_fp8_e4m3fn.safetensors");
    put("vae/wan2.1/Wan2_1_VAE_bf16.safetensors");
    put("umt5-xxl-enc-bf16.safetensors");
    put("wan2.1-i2v-14b-480p-fp8/open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors");
    put("text_encoders/tokenizer.json");
    let files = registry.resolve(&model, &places).unwrap();
    assert!(matches!(&files.vae, Source::File(p) if p.ends_with("vae/wan2.1/Wan2_1_VAE_bf16.safetensors")));
    let encoder = "open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors";
    let listed = registry.list("clip_vision", &places);
    assert!(listed[encoder].starts_with(dir.path().join("wan2.1-i2v-14b-480p-fp8")), "{listed:?}");
    assert!(registry.list("loras", &places).is_empty());
}
