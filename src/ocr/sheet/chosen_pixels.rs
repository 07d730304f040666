//! Chooses the pixels of a page by what is found in it.
//!
//! A worker measures the page. The choice is noted in the facts of the page, which then have the quote of what is sent.

use super::Preparation;
use crate::document::error::DocumentError;
use crate::document::page::{Draw, Part};
use crate::document::workers::Sheet;
use crate::image::Size;
use crate::image::region::Region;
use crate::legibility::Legibility;
use crate::ocr::facts::{ChoiceFacts, PageFacts, Source};
use crate::quote::Quote;
use crate::quote::auto::{self, Chosen, LegibleHeights};
use crate::units::Pixels;

/// How a page is sent, if it is not sent as without a choice.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    /// It is blank, so it is not sent.
    Blank,
    /// A part of it is sent, or all of it with fewer pixels.
    Part(Chosen),
    /// It is sent as it is, with a lower `max_pixels`.
    AtMost(Pixels),
}

impl Preparation<'_> {
    /// Measures a page, and chooses how it is sent. `None` if it is sent as without a choice. What was found is noted
    /// in its facts.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Busy`].
    pub(super) async fn choose(
        &self,
        facts: &mut PageFacts,
        sheet: &mut Sheet,
        legible: LegibleHeights,
    ) -> Result<Option<Choice>, DocumentError> {
        let Some(found) = measured(sheet, facts.shown).await? else { return Ok(None) };
        let choice = self.choice(facts, &found, legible);
        let is_held = || self.choice(facts, &found, self.intake.legible_without_factor()).is_some();
        let is_held_by_factor = choice.is_none() && is_held();
        let text_height = found.text.map(|text| text.height);
        facts.choice =
            Some(ChoiceFacts { text_height, is_held_by_factor, ..ChoiceFacts::default() });
        Ok(choice)
    }

    /// What is chosen for a page in which this was found.
    fn choice(
        &self,
        facts: &PageFacts,
        found: &Legibility,
        legible: LegibleHeights,
    ) -> Option<Choice> {
        if found.content.is_none() {
            return self.request.knows_blank_pages().then_some(Choice::Blank);
        }
        let is_whole = self.is_kept_whole(facts);
        let chosen = auto::fewest(found, facts.shown, &facts.quote.image, legible, !is_whole)?;
        // For a tenant that rejects, only its text makes a page smaller, and not its cap.
        if self.terms().cap.reject && facts.quote.of_chosen(&chosen).image.capped {
            return None;
        }
        Some(if is_whole { Choice::AtMost(chosen.size.pixels()) } else { Choice::Part(chosen) })
    }

    /// Notes a choice in the facts of a page. Returns how the page is drawn; `None` if the choice does not change that.
    pub(super) fn apply(&self, facts: &mut PageFacts, choice: Choice) -> Option<Draw> {
        match choice {
            Choice::Blank => {
                facts.source = Source::Blank;
                facts.is_read = false;
                facts.beside = None;
                Some(Draw::At(facts.quote.image.size))
            }
            Choice::AtMost(pixels) => {
                self.requote(facts, facts.quote.at_most(pixels));
                None
            }
            Choice::Part(chosen) => {
                let Chosen { region, size, .. } = chosen;
                // It is drawn upright.
                facts.is_turned = false;
                self.requote(facts, facts.quote.of_chosen(&chosen));
                let is_cut = region != Region::of(facts.shown);
                if let Some(choice) = facts.choice.as_mut().filter(|_| is_cut) {
                    choice.crop = Some(region);
                }
                Some(Draw::Part(Part { page: facts.shown, region, size }))
            }
        }
    }

    fn requote(&self, facts: &mut PageFacts, quote: Quote) {
        let unchosen = facts.bound(self.request.reading());
        facts.beside = self.beside(&quote);
        facts.quote = quote;
        if let Some(choice) = &mut facts.choice {
            choice.is_other = true;
            choice.unchosen = unchosen;
        }
    }
}

/// Measures a page; `None` if it cannot be measured.
///
/// # Errors
///
/// [`DocumentError::Busy`].
async fn measured(sheet: &mut Sheet, size: Size) -> Result<Option<Legibility>, DocumentError> {
    match sheet.measure(size).await {
        Ok(found) => Ok(Some(found)),
        Err(DocumentError::Busy) => Err(DocumentError::Busy),
        Err(error) => {
            tracing::debug!("a page is not measured, so its pixels are not chosen: {error}");
            Ok(None)
        }
    }
}
