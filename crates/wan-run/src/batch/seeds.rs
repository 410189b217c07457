//! The jobs of `--count`.

use std::path::{Path, PathBuf};

use crate::cli::GenerateArgs;
use crate::error::{Failure, Outcome};
use crate::generate;
use crate::options::{random_seed, resolve};
use crate::session::Session;
use crate::settings::Settings;

/// `count` jobs like `args`, with their seeds: the first has the seed asked for, or a random one.
///
/// Errors: exit 2 for seeds beyond the largest; those of the settings.
pub(super) fn jobs(args: &GenerateArgs, count: u32) -> Outcome<Vec<(u64, GenerateArgs)>> {
    let first = generate::settings(args)?.seed.unwrap_or_else(random_seed);
    if first.checked_add(u64::from(count) - 1).is_none() {
        return Err(Failure::usage(format!(
            "count: found {count} seeds from {first} on, expected them to be at most {}",
            u64::MAX
        )));
    }
    let number = args.count_from.unwrap_or(1);
    if number.checked_add(count - 1).is_none() {
        return Err(Failure::usage(format!(
            "count-from: found {count} numbers from {number} on, expected them to be at most {}",
            u32::MAX
        )));
    }
    let job = |index: u32| {
        let seed = first + u64::from(index);
        let own = |path: &Option<PathBuf>| path.as_deref().map(|path| numbered(path, number + index));
        let settings = Settings { seed: Some(seed), ..args.settings.clone() };
        let job = GenerateArgs {
            count: None,
            count_from: None,
            output: own(&args.output),
            save_latents: own(&args.save_latents),
            contact_sheet: own(&args.contact_sheet),
            settings,
            ..args.clone()
        };
        (seed, job)
    };
    Ok((0..count).map(job).collect())
}

/// Refuses `--noise` where it leaves nothing to the seed, and all videos would be the same.
///
/// Errors: exit 2; those of the settings.
pub(super) fn check_noise(args: &GenerateArgs, session: &Session<'_>) -> Outcome {
    if args.noise.is_none() {
        return Ok(());
    }
    let request = resolve(generate::settings(args)?, &session.registry)?.request;
    if request.scheduler.needs_noise() || request.noise_aug_strength > 0.0 {
        return Ok(());
    }
    Err(Failure::usage(
        "--noise: found one beside --count, which would make the same video again: expected one of the two, or \
         --scheduler dpm++_sde or lcm, or --noise-aug-strength, which draw noise of their own",
    ))
}

/// `NAME-0001.EXT` of `NAME.EXT`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{number:04}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_before_the_extension() {
        for (path, expected) in
            [("a.mp4", "a-0007.mp4"), ("x/y.z/b", "x/y.z/b-0007"), ("c.tar.gz", "c.tar-0007.gz")]
        {
            assert_eq!(numbered(Path::new(path), 7), Path::new(expected));
        }
    }

    #[test]
    fn seeds_are_counted_up() {
        let settings = Settings { seed: Some(41), ..Settings::default() };
        let config = tempfile::NamedTempFile::new().unwrap();
        let args = GenerateArgs { settings, config: Some(config.path().into()), ..GenerateArgs::default() };
        let seeds: Vec<u64> = jobs(&args, 3).unwrap().into_iter().map(|(seed, _)| seed).collect();
        assert_eq!(seeds, [41, 42, 43]);
        let settings = Settings { seed: Some(u64::MAX), ..Settings::default() };
        let last = GenerateArgs { settings, ..args };
        assert!(jobs(&last, 1).is_ok());
        assert!(jobs(&last, 2).unwrap_err().message.contains("found 2 seeds"));
    }
}
