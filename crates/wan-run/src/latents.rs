//! `--save-latents` and `--from-latents`: the final latents as a file, and a video of it.

use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;
use wan_core::WeightSet;
use wan_core::progress::Stage;
use wan_media::METADATA_KEY;
use wan_pipeline::{Plan, load_tensor, save_tensors};

use crate::cli::GenerateArgs;
use crate::error::{Failure, Outcome};
use crate::finish::write_video;
use crate::generate::{Begun, check_memory, settings_over};
use crate::options::resolve;
use crate::record::Record;
use crate::session::Session;
use crate::target::Target;

/// Writes the latents if the command asks for it, with what the video says about how it was made.
pub fn save(latents: &Tensor, target: &Target<'_>) -> Outcome {
    let Some(path) = &target.args.save_latents else { return Ok(()) };
    let record = target.main.record(target.record.as_ref())?;
    let metadata = record.map(|record| (METADATA_KEY.to_string(), record)).into_iter().collect();
    Ok(save_tensors(path, &[("latents".to_string(), latents.clone())].into(), metadata)?)
}

/// Decodes latents. The video says what they or `--from-video` say about how they were made; where nothing does,
/// neither does the video.
pub fn decode_only(args: &GenerateArgs, file: &Path, session: &Session<'_>, begun: Begun<'_>) -> Outcome {
    let started = Instant::now();
    let latents = load_tensor(file, "latents")?;
    let latents = if latents.dims().len() == 4 { latents.unsqueeze(0)? } else { latents };
    let record = read_record(file)?;
    let names = record.clone().map(|record| (record.image, record.end_image));
    let known = record.is_some() || args.from_video.is_some();
    let options = resolve(settings_over(args, record)?, &session.registry)?;
    let mut target = Target::new(args, &options, session, started)?;
    let (image, end_image) = names.unwrap_or_default();
    target.record = target.record.filter(|_| known).map(|record| Record { image, end_image, ..record });
    let plan = Plan::for_latents(options.request.clone(), &latents)
        .map_err(|e| Failure::run(format!("{}: {e}", file.display())))?;
    target.check_size(&plan)?;
    let pipeline = session.open(&options)?;
    begun(&target.main.path)?;
    if !known && options.metadata {
        session.reporter.note(&format!(
            "{}: says nothing about how it was made, and neither does the video",
            file.display()
        ));
    }
    check_memory(&pipeline, &plan, Stage::Decode, &options, session.reporter)?;
    write_video(&pipeline, &plan, &latents, &target)
}

fn read_record(file: &Path) -> Outcome<Option<Record>> {
    let set = WeightSet::open(file)?;
    let text = set.metadata().get(METADATA_KEY);
    text.map(|text| Record::parse(text, file)).transpose()
}
