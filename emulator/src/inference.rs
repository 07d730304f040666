//! Processes a readable request: the checks in the service's order, the preparation of the images, the OCR run, and the
//! bill.

use std::sync::Arc;

use image::RgbImage;

use crate::address::unreadable;
use crate::answer::Answer;
use crate::clock;
use crate::engine::{EngineError, Reading};
use crate::error::Refusal;
use crate::geometry::Scaled;
use crate::models::{MOST_INPUT_TOKENS, Model};
use crate::picture::{Picture, Unreadable};
use crate::request::Ask;
use crate::service::Service;
use crate::tasks::{self, Page};
use crate::usage::{Usage, output_tokens, within_tokens};

/// Runs one call.
///
/// # Errors
///
/// The service's refusal. A refused call costs nothing.
pub(crate) async fn infer(
    service: &Service,
    ask: &Arc<Ask>,
    key: Option<&str>,
) -> Result<Answer, Refusal> {
    service.authenticate(key)?;
    let key = key.unwrap_or_default();
    let model = admitted(service, ask, key)?;
    let max_tokens = output_limit(model, ask)?;
    let images = measured(model, ask)?;
    let mut usage = Usage {
        image: images.iter().map(|(_, scaled)| scaled.tokens).sum(),
        text: tasks::prompt_tokens(model, ask),
        output: 0,
    };
    if usage.input() > MOST_INPUT_TOKENS {
        let message = format!("Range of input length should be [1, {MOST_INPUT_TOKENS}]");
        return Err(Refusal::invalid_parameter(message));
    }

    let mut pages = Vec::new();
    for (picture, scaled) in images {
        let (width, height) = (picture.width, picture.height);
        let reading = read(service, picture, scaled).await?;
        pages.push(Page { reading, width, height });
    }
    let written = write(Arc::clone(ask), pages).await?;

    let text = within_tokens(&written.text, max_tokens);
    let is_whole = text.len() == written.text.len();
    usage.output = output_tokens(text);
    service.throttle().spend(key, usage.total(), clock::instant());
    Ok(Answer {
        model: model.name,
        text: text.to_owned(),
        // The service could not parse a list that was cut off either.
        ocr_result: written.ocr_result.filter(|_| is_whole),
        finish_reason: if is_whole { "stop" } else { "length" },
        usage,
        states_usage: true,
    })
}

/// The model, if it exists, the key may call now and the request has the right form.
fn admitted(service: &Service, ask: &Ask, key: &str) -> Result<&'static Model, Refusal> {
    let known = ask.model.as_deref().map(|name| Model::named(name).ok_or(name));
    if let Some(Err(name)) = known {
        let refusal = Refusal::of_code("ModelNotFound");
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        return Err(refusal.with_message(message));
    }
    service.throttle().admit(key, clock::instant())?;
    if let Some(problem) = &ask.problem {
        return Err(problem.clone());
    }
    let Some(Ok(model)) = known else { return Err(Refusal::of_code("InvalidParameter")) };
    if ask.task.is_some() && !model.has_tasks() {
        let message = format!("{} does not support ocr_options.task", model.name);
        return Err(Refusal::invalid_parameter(message));
    }
    Ok(model)
}

/// The most tokens that may be written.
fn output_limit(model: &Model, ask: &Ask) -> Result<u64, Refusal> {
    let Some(asked) = ask.max_tokens else { return Ok(model.default_max_tokens) };
    let within = u64::try_from(asked).ok().filter(|most| (1..=model.most_tokens).contains(most));
    within.ok_or_else(|| {
        let most = model.most_tokens;
        Refusal::invalid_parameter(format!("Range of max_tokens should be [1, {most}]"))
    })
}

/// The images that count, each with the size at which it is read.
fn measured(model: &Model, ask: &Ask) -> Result<Vec<(Picture, Scaled)>, Refusal> {
    let mut images = Vec::new();
    for image in ask.images.iter().filter(|image| image.counts) {
        let picture = image.picture.clone()?;
        picture.judge().map_err(unreadable)?;
        let is_downloaded = image.seen.media_type.is_none();
        if is_downloaded && image.seen.bytes > model.longest_download() {
            return Err(unreadable(Unreadable::TooLarge));
        }
        let scaled = model.geometry_within(image.limits()).scale(picture.width, picture.height);
        images.push((picture, scaled));
    }
    Ok(images)
}

/// Prepares one image and reads it.
async fn read(service: &Service, picture: Picture, scaled: Scaled) -> Result<Reading, Refusal> {
    let image = {
        let _turn = service.decoders.acquire().await;
        shown(picture, scaled).await?
    };
    service.engine.read(image).await.map_err(|error| match error {
        EngineError::Busy => Refusal::of_code("ModelServingError"),
        EngineError::Slow => Refusal::of_code("RequestTimeOut"),
        EngineError::Failed => Refusal::of_code("InternalError.Algo"),
    })
}

async fn shown(picture: Picture, scaled: Scaled) -> Result<RgbImage, Refusal> {
    let decoded = tokio::task::spawn_blocking(move || picture.shown_at(scaled)).await;
    // A panic of the decoder means that it cannot decode the image.
    let decoded = decoded.unwrap_or(Err(Unreadable::Undecodable));
    decoded.map_err(unreadable)
}

async fn write(ask: Arc<Ask>, pages: Vec<Page>) -> Result<tasks::Written, Refusal> {
    let written = tokio::task::spawn_blocking(move || tasks::write(&ask, &pages)).await;
    written.map_err(|_| Refusal::of_code("InternalError.Algo"))
}
