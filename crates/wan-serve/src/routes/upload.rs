//! `POST /upload/image`: a picture into the input folder. Streamed to a file, and looked at before it gets its name.

use std::io::Read;
use std::path::{Path, PathBuf};

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use cap_std::fs::{Dir, File};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::filename::extended_filename;
use crate::app::{App, Shared};
use crate::body::{self, DRAIN_LIMIT, IMAGE_LIMIT};
use crate::folders::{Kind, UNFINISHED};
use crate::image_check::check_image;
use crate::names;
use crate::reply::{ApiError, json_ok};

/// Longest text field in bytes.
const TEXT_LIMIT: usize = 4096;

/// Most bytes of a form around its image that are expected.
const FORM_LIMIT: usize = 1 << 20;

/// Names that are tried for content that is new: `girl (1).png` and so on.
const MOST_NAMES: usize = 10_000;

/// What a form says.
#[derive(Default)]
struct Form {
    image: Option<Upload>,
    overwrite: bool,
    kind: Option<String>,
    subfolder: String,
}

/// An image that has arrived, under a name of its own until it is known to be one.
struct Upload {
    filename: String,
    unfinished: Unfinished,
}

/// A file that is removed again unless it gets its final name.
struct Unfinished {
    dir: Dir,
    name: String,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already once it was renamed.
        let _ = self.dir.remove_file(&self.name);
    }
}

/// `POST /upload/image`.
pub(crate) async fn image(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse().ok());
    // Without one, as of a compressed body, it may be as large as any.
    let length: u64 = length.unwrap_or(IMAGE_LIMIT as u64);
    if length > (IMAGE_LIMIT + FORM_LIMIT) as u64 {
        if length <= DRAIN_LIMIT as u64 {
            body::drain(&mut request.into_body()).await;
        }
        return Err(ApiError::too_large(IMAGE_LIMIT));
    }
    app.blocking(move |app| app.disk.take(length)).await?;
    let mut form = Form::default();
    let mut multipart = Multipart::from_request(request, &()).await.map_err(|_| missing_image())?;
    while let Some(field) = multipart.next_field().await.map_err(invalid_form)? {
        match field.name().unwrap_or_default() {
            "image" => form.image = Some(receive(&app, field).await?),
            "overwrite" => form.overwrite = matches!(text(field).await?.as_str(), "true" | "1"),
            "type" => form.kind = Some(text(field).await?),
            "subfolder" => form.subfolder = text(field).await?,
            _ => drain(field).await?,
        }
    }
    let upload = form.image.take().ok_or_else(missing_image)?;
    app.converting(move |app| store(app, &form, &upload)).await
}

/// `POST /upload/mask`: not needed for image-to-video.
pub(crate) async fn mask() -> ApiError {
    let message = "Masks are not supported: image-to-video has no use for them; use /upload/image";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", message)
}

fn missing_image() -> ApiError {
    ApiError::bad_request(
        "missing_image",
        "found no image, expected a multipart form with a file part `image`",
    )
}

fn invalid_form(error: MultipartError) -> ApiError {
    ApiError::bad_request("invalid_form", "The multipart form is malformed").details(error.body_text())
}

async fn text(mut field: Field<'_>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(invalid_form)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > TEXT_LIMIT {
            drain(field).await?;
            return Err(ApiError::too_large(TEXT_LIMIT));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::bad_request("invalid_form", "A text field is not UTF-8"))
}

/// Reads the rest of a field and throws it away: a client that still sends would not read an answer.
async fn drain(mut field: Field<'_>) -> Result<(), ApiError> {
    let mut left = DRAIN_LIMIT;
    while let Some(chunk) = field.chunk().await.map_err(invalid_form)? {
        left = left.checked_sub(chunk.len()).ok_or_else(|| ApiError::too_large(IMAGE_LIMIT))?;
    }
    Ok(())
}

async fn receive(app: &Shared, mut field: Field<'_>) -> Result<Upload, ApiError> {
    let extended = field.headers().get(header::CONTENT_DISPOSITION).and_then(extended_filename);
    let filename = extended.or(field.file_name().map(str::to_owned)).ok_or_else(missing_image)?;
    if !names::is_plain(&filename) {
        drain(field).await?;
        let message = format!(
            "filename: found {filename:?}, expected the name of one file, at most {} bytes, without slashes, colons and a \
             dot at its start",
            names::MAX_NAME
        );
        return Err(ApiError::bad_request("invalid_filename", message));
    }
    let name = format!("{UNFINISHED}{}", uuid::Uuid::new_v4().simple());
    let dir = app.folders.input.dir.try_clone()?;
    let mut file = tokio::fs::File::from_std(dir.create(&name)?.into_std());
    let unfinished = Unfinished { dir, name };
    let mut length = 0;
    while let Some(chunk) = field.chunk().await.map_err(invalid_form)? {
        length += chunk.len();
        if length > IMAGE_LIMIT {
            drain(field).await?;
            return Err(ApiError::too_large(IMAGE_LIMIT));
        }
        file.write_all(&chunk).await?;
    }
    file.sync_all().await?;
    Ok(Upload { filename, unfinished })
}

/// Checks what has arrived and gives it its name.
fn store(app: &App, form: &Form, upload: &Upload) -> Result<Response, ApiError> {
    let kind = match form.kind.as_deref().map_or(Some(Kind::Input), Kind::parse) {
        Some(kind @ (Kind::Input | Kind::Temp)) => kind,
        _ => {
            let found = form.kind.as_deref().unwrap_or_default();
            let message =
                format!("type: found `{found}`, expected `input` or `temp`: results are not overwritten");
            return Err(ApiError::bad_request("invalid_type", message));
        }
    };
    let subfolder = subfolder(&form.subfolder)?;
    let mut bytes = Vec::new();
    upload.unfinished.dir.open(&upload.unfinished.name)?.read_to_end(&mut bytes)?;
    check_image(&bytes, &upload.filename)?;

    let dir = &app.folders.of(kind).dir;
    let refused = |_| ApiError::bad_request("invalid_subfolder", "subfolder: cannot be made");
    dir.create_dir_all(&subfolder).map_err(refused)?;
    let _writing = app.writing();
    let name = match form.overwrite {
        true => Some(upload.filename.clone()).filter(|name| !dir.is_dir(subfolder.join(name))),
        false => free_name(dir, &subfolder, &upload.filename, &Sha256::digest(&bytes))?,
    };
    let Some(name) = name else {
        return Err(ApiError::bad_request("invalid_filename", format!("{}: is taken", upload.filename)));
    };
    let path = subfolder.join(&name);
    if form.overwrite || !dir.exists(&path) {
        upload.unfinished.dir.rename(&upload.unfinished.name, dir, &path)?;
    }
    let kind = if kind == Kind::Temp { "temp" } else { "input" };
    Ok(json_ok(&json!({"name": name, "subfolder": form.subfolder, "type": kind})))
}

fn subfolder(text: &str) -> Result<PathBuf, ApiError> {
    let hidden = |path: &Path| path.iter().any(|part| part.to_string_lossy().starts_with('.'));
    names::below(text).filter(|path| !hidden(path)).ok_or_else(|| {
        let message = format!("subfolder: found {text:?}, expected a path below the input folder");
        ApiError::bad_request("invalid_subfolder", message)
    })
}

/// The first of `NAME.EXT`, `NAME (1).EXT`, ... that is free, or has the same content already.
fn free_name(dir: &Dir, subfolder: &Path, filename: &str, digest: &[u8]) -> Result<Option<String>, ApiError> {
    let (stem, extension) = match filename.rsplit_once('.') {
        Some((stem, extension)) => (stem, format!(".{extension}")),
        None => (filename, String::new()),
    };
    let numbered = (1..MOST_NAMES).map(|n| format!("{stem} ({n}){extension}"));
    for name in std::iter::once(filename.to_owned()).chain(numbered) {
        if !names::is_plain(&name) {
            return Ok(None); // too long with its number
        }
        let path = subfolder.join(&name);
        // What is there may also be a folder, or a link that leads nowhere.
        if dir.symlink_metadata(&path).is_err() {
            return Ok(Some(name));
        }
        if dir.open(&path).is_ok_and(|file| is_same(file, digest)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn is_same(mut file: File, digest: &[u8]) -> bool {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return hasher.finalize()[..] == *digest,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(_) => return false,
        }
    }
}
