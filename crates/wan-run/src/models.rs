//! `wan-run models`: what is here, and getting what is not.

use std::collections::BTreeSet;
use std::path::PathBuf;

use wan_core::progress::CancelToken;
use wan_models::hub::{HubError, RemoteFile, verify};
use wan_models::{Description, FileEntry, KnownSize, Places, Registry, Source, files_missing};

use crate::cli::{ModelsCommand, PlacesArgs};
use crate::error::{Failure, Outcome};
use crate::info::size;
use crate::options::{DEFAULT_MODELS_DIR, user_defaults};
use crate::print_line;
use crate::pull_progress::PullProgress;

/// Runs the command.
pub fn run(command: ModelsCommand, cancel: &CancelToken) -> Outcome {
    let registry = Registry::builtin()?;
    match command {
        ModelsCommand::List(args) => list(&registry, &places(&args)?),
        ModelsCommand::Pull { names, offline, quiet, progress, places: args } => {
            let what = described(&registry, &names)?;
            let progress = PullProgress::new(progress, quiet);
            pull(&what, &places(&args)?, &registry, offline, &progress, cancel)
        }
        ModelsCommand::Verify { names, places: args } => {
            let what = described(&registry, &names)?;
            check(&what, &places(&args)?, &registry, cancel)
        }
        ModelsCommand::Path { name, places: args } => path(&registry, &name, &places(&args)?),
        ModelsCommand::Remove { names, shared, places: args } => {
            let what = described(&registry, &names)?;
            remove(&what, &places(&args)?, &registry, shared, cancel)
        }
        ModelsCommand::Inspect(args) => crate::inspect::inspect(&args),
        ModelsCommand::Convert(args) => crate::inspect::convert(&args, cancel),
    }
}

fn places(args: &PlacesArgs) -> Outcome<Places> {
    let defaults = user_defaults(args.config.as_deref())?;
    let folder = args.models_dir.clone().or(defaults.models_dir);
    let extra = args.extra_model_paths.clone().or(defaults.extra_model_paths);
    crate::hub::places(&folder.unwrap_or_else(|| PathBuf::from(DEFAULT_MODELS_DIR)), extra.as_deref())
}

fn described(registry: &Registry, names: &[String]) -> Outcome<Vec<Description>> {
    Ok(names.iter().map(|n| registry.find_any(n)).collect::<Result<_, _>>()?)
}

fn hub_failure(error: HubError) -> Failure {
    match error {
        HubError::Cancelled => Failure::interrupted(error),
        error => Failure::run(error),
    }
}

fn list(registry: &Registry, places: &Places) -> Outcome {
    print_line(&format!("looked in {}", places.describe()))?;
    for what in registry.all() {
        let found = registry.locate_all(&what, places);
        let here = found.iter().flatten().count();
        let state = match (here, found.len()) {
            (n, all) if n == all => "ready".to_string(),
            (0, _) => "not here".to_string(),
            (n, all) => format!("{n} of {all} files"),
        };
        let total = match what.files().iter().all(|(_, entry)| entry.embedded) {
            true => "embedded".to_string(),
            false => what.files().iter().map(|(_, entry)| entry.known_size()).sum::<KnownSize>().to_string(),
        };
        print_line(&format!("  {:34} {state:14} {total:>17}  {}", what.name(), what.summary()))?;
    }
    print_line(
        "\"at least\": not every file's size is known, in most cases not the transformer's, which is the largest",
    )?;
    Ok(())
}

/// Whether a file on disk can stand for the described one, as far as its length tells.
fn fits(path: &std::path::Path, entry: &FileEntry) -> bool {
    let length = std::fs::metadata(path).map(|m| m.len()).ok();
    entry.bytes.is_none_or(|expected| length == Some(expected))
}

fn pull(
    what: &[Description],
    places: &Places,
    registry: &Registry,
    offline: bool,
    progress: &PullProgress,
    cancel: &CancelToken,
) -> Outcome {
    let hub = crate::hub::hub(offline)?;
    let mut wanted: Vec<RemoteFile> = Vec::new();
    for description in what {
        progress.note(&format!("{} (licence {})", description.name(), description.license()));
        let found = registry.locate_all(description, places);
        for ((key, entry), source) in description.files().into_iter().zip(found) {
            match source {
                Some(Source::Embedded { .. }) => continue,
                Some(Source::Tensor { path, name }) => {
                    progress.note(&format!("  {key}: here, {name} in {}", path.display()));
                    continue;
                }
                // The tokenizer found beside a text encoder may be another edition of the same.
                Some(Source::File(path)) if key == "tokenizer" || fits(&path, entry) => {
                    progress.note(&format!("  {key}: here, {}", path.display()));
                    continue;
                }
                Some(Source::File(path)) => progress.note(&format!(
                    "  {key}: {} has another length than described and is fetched anew",
                    path.display()
                )),
                None => {}
            }
            let files = entry.remote_files();
            if files.is_empty() {
                return Err(Failure::run(format!(
                    "{}: {key}: found no repository in its description, expected `repo`, or {} in {}",
                    description.name(),
                    entry.path,
                    places.describe()
                )));
            }
            wanted.extend(files.into_iter().filter(|f| !wanted.contains(f)).collect::<Vec<_>>());
        }
    }
    hub.pull(&wanted, progress, cancel).map_err(hub_failure)?;
    progress.finish();
    Ok(())
}

fn check(what: &[Description], places: &Places, registry: &Registry, cancel: &CancelToken) -> Outcome {
    let mut bad = 0;
    for description in what {
        let found = registry.locate_all(description, places);
        for ((key, entry), source) in description.files().into_iter().zip(found) {
            let name = description.name();
            let path = match source {
                Some(Source::Embedded { .. }) => {
                    print_line(&format!("{name} {key}: embedded"))?;
                    continue;
                }
                Some(Source::Tensor { path, name: tensor }) => {
                    print_line(&format!("{name} {key}: ok, {tensor} in {}", path.display()))?;
                    continue;
                }
                Some(Source::File(path)) => path,
                None => {
                    bad += 1;
                    print_line(&format!("{name} {key}: missing, {}", entry.label()))?;
                    continue;
                }
            };
            for (file, path) in with_parts(entry, path) {
                match verify(&path, &file, cancel) {
                    Ok(true) => {
                        print_line(&format!("{name} {key}: ok, length and sha256, {}", path.display()))?
                    }
                    Ok(false) => {
                        print_line(&format!(
                            "{name} {key}: ok, length only (no sha256 is known), {}",
                            path.display()
                        ))?;
                    }
                    Err(HubError::Cancelled) => return Err(hub_failure(HubError::Cancelled)),
                    Err(error) => {
                        bad += 1;
                        print_line(&format!("{name} {key}: wrong, {error}"))?;
                    }
                }
            }
        }
    }
    if bad == 0 { Ok(()) } else { Err(Failure::run(format!("{bad} of the files are wrong or missing"))) }
}

/// A file and its shards with their places.
fn with_parts(entry: &FileEntry, path: PathBuf) -> Vec<(RemoteFile, PathBuf)> {
    let own = RemoteFile {
        repo: entry.repo.clone().unwrap_or_default(),
        path: entry.path.clone(),
        bytes: entry.bytes,
        sha256: entry.sha256.clone(),
    };
    let parts = entry.parts.iter().map(|part| {
        let file = RemoteFile {
            repo: own.repo.clone(),
            path: part.path.clone(),
            bytes: part.bytes,
            sha256: part.sha256.clone(),
        };
        let name = std::path::Path::new(&part.path).file_name().unwrap_or_default();
        (file, path.with_file_name(name))
    });
    let parts: Vec<_> = parts.collect();
    std::iter::once((own, path)).chain(parts).collect()
}

fn path(registry: &Registry, name: &str, places: &Places) -> Outcome {
    let what = registry.find_any(name)?;
    let found = registry.locate_all(&what, places);
    let mut missing = Vec::new();
    for ((key, entry), source) in what.files().into_iter().zip(found) {
        match source {
            Some(Source::Embedded { label, .. }) => print_line(&format!("{key}\t{label}"))?,
            Some(Source::File(path)) => print_line(&format!("{key}\t{}", path.display()))?,
            Some(Source::Tensor { path, name }) => print_line(&format!("{key}\t{}#{name}", path.display()))?,
            None => missing.push(entry.clone()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(files_missing(&what, &missing, places).into())
}

fn remove(
    what: &[Description],
    places: &Places,
    registry: &Registry,
    shared: bool,
    cancel: &CancelToken,
) -> Outcome {
    let cache = places
        .cache()
        .ok_or_else(|| Failure::usage("no home folder: name the folder of the cache with HF_HOME"))?;
    let kept = if shared { BTreeSet::new() } else { needed_elsewhere(what, places, registry) };
    let mut freed = 0;
    for description in what {
        if description.files().iter().all(|(_, entry)| entry.embedded) {
            print_line(&format!(
                "{}: a part of the program, there is nothing to remove",
                description.name()
            ))?;
        }
        for (key, entry) in description.files() {
            for file in entry.remote_files() {
                if kept.contains(&file.label()) {
                    print_line(&format!(
                        "{} {key}: kept, another model needs {}",
                        description.name(),
                        file.label()
                    ))?;
                    continue;
                }
                let bytes = cache.remove(&file, cancel).map_err(hub_failure)?;
                if bytes > 0 {
                    print_line(&format!(
                        "{} {key}: removed {} ({})",
                        description.name(),
                        file.label(),
                        size(bytes)
                    ))?;
                }
                freed += bytes;
            }
        }
        for ((key, _), source) in description.files().iter().zip(registry.locate_all(description, places)) {
            if let Some(Source::File(path)) = source.filter(|s| !in_cache(s, cache.folder())) {
                print_line(&format!("{} {key}: left alone, {}", description.name(), path.display()))?;
            }
        }
    }
    print_line(&format!("freed {}", size(freed)))?;
    Ok(())
}

fn in_cache(source: &Source, cache: &std::path::Path) -> bool {
    matches!(source, Source::File(path) if path.starts_with(cache))
}

/// Files of models that are complete and stay.
fn needed_elsewhere(what: &[Description], places: &Places, registry: &Registry) -> BTreeSet<String> {
    let stays = |d: &Description| what.iter().all(|w| w.name() != d.name());
    let complete = |d: &Description| registry.locate_all(d, places).iter().all(Option::is_some);
    let staying = registry.all().into_iter().filter(|d| stays(d) && complete(d));
    let labels = staying.flat_map(|d| {
        let files: Vec<RemoteFile> = d.files().into_iter().flat_map(|(_, e)| e.remote_files()).collect();
        files.into_iter().map(|f| f.label())
    });
    labels.collect()
}
