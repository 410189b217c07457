//! The environment's word on where models are and which hub they come from.

use std::path::{Path, PathBuf};

use wan_models::Places;
use wan_models::hub::{DEFAULT_ENDPOINT, Hub, HubCache, HubOptions};

use crate::error::{Failure, Outcome};

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// `HF_HOME`, or where the Hugging Face libraries keep their things without it.
fn hf_home() -> Option<PathBuf> {
    let cache = || variable("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().filter(|h| !h.as_os_str().is_empty()).map(|h| h.join(".cache"));
    variable("HF_HOME").map(PathBuf::from).or_else(|| Some(cache().or_else(home)?.join("huggingface")))
}

/// The Hugging Face cache of this user; absent without a home folder.
pub fn cache() -> Option<HubCache> {
    let named = variable("HF_HUB_CACHE").map(PathBuf::from);
    named.or_else(|| Some(hf_home()?.join("hub"))).map(HubCache::new)
}

/// Where model files are looked for: the folder, ComfyUI's further folders, the Hugging Face cache.
///
/// Errors: exit 2 if ComfyUI's list of folders cannot be read.
pub fn places(models_dir: &Path, extra_model_paths: Option<&Path>) -> Outcome<Places> {
    let mut places = Places::folder(models_dir);
    let list = extra_model_paths.map(Path::to_path_buf).or_else(|| places.comfyui_extra_model_paths());
    if let Some(list) = list {
        let value = |name: &str| match name {
            "HOME" => std::env::home_dir().map(|home| home.display().to_string()),
            _ => std::env::var(name).ok(),
        };
        places = places.with_extra_model_paths(&list, &value).map_err(Failure::usage)?;
    }
    Ok(match cache() {
        Some(cache) => places.with_cache(cache),
        None => places,
    })
}

/// The hub that the environment names. `offline` or `HF_HUB_OFFLINE` forbids the network.
///
/// Errors: exit 2 if there is no place for a cache.
pub fn hub(offline: bool) -> Outcome<Hub> {
    let cache =
        cache().ok_or_else(|| Failure::usage("no home folder: name a folder for the cache with HF_HOME"))?;
    let forbidden = |name| {
        variable(name).is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"))
    };
    Ok(Hub::new(HubOptions {
        cache,
        endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into()),
        token: token(),
        offline: offline || forbidden("HF_HUB_OFFLINE"),
    }))
}

/// `HF_TOKEN`, or the token that `hf auth login` stored.
fn token() -> Option<String> {
    let file = || {
        let path = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hf_home()?.join("token")))?;
        std::fs::read_to_string(path).ok()
    };
    variable("HF_TOKEN").or_else(file).map(|t| t.trim().to_string()).filter(|t| !t.is_empty())
}
