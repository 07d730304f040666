//! The targets of stream requests, and the requests.
//!
//! All targets of the compatible protocol get the same bytes: the gateway has nothing to change if
//! the bill is requested. `/ocr` gets the file.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::events::Ending;
use crate::listen::Crowd;
use crate::process::{self, Process};
use crate::subject::{COMPATIBLE, Rig, Subject};
use crate::terminal::Failure;
use crate::terminal::say;
use crate::upload::{self, Billing, Upload};
use crate::upstream::Manner;

/// The measured programs.
#[derive(Debug)]
pub(crate) struct Programs<'a> {
    pub(crate) gateway: &'a Path,
    /// `None` if it cannot be run.
    pub(crate) nginx: Option<&'a Path>,
}

/// An upstream and the routes to it.
#[derive(Debug)]
pub(crate) struct Hops {
    pub(crate) gateway: Subject,
    nginx: Option<Subject>,
    direct: Subject,
    _upstream: Process,
}

/// A subject and the form of its requests.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// Its name in the tables.
    pub(crate) name: &'static str,
    pub(crate) subject: &'a Subject,
    path: &'static str,
    form: Form,
    ending: Ending,
    expect: String,
}

/// The posted body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// The picture's file.
    File,
    /// The compatible protocol's JSON.
    Json(Billing),
}

impl<'a> Programs<'a> {
    /// The programs with these paths.
    pub(crate) fn new(gateway: &'a Path, nginx: &'a Path) -> Self {
        let runs = process::succeeds(Command::new(nginx).arg("-v"));
        if !runs {
            say("nginx cannot be run and is left out");
        }
        Self { gateway, nginx: runs.then_some(nginx) }
    }
}

impl Hops {
    /// Starts an upstream with this behaviour, and all subjects in front of it.
    pub(crate) fn start(
        rig: &Rig,
        programs: &Programs<'_>,
        manner: Manner,
    ) -> Result<Self, Failure> {
        let (process, upstream) = rig.upstream(&manner)?;
        let nginx = programs.nginx.map(|nginx| rig.nginx(nginx, upstream)).transpose()?;
        let gateway = rig.gateway(programs.gateway, upstream)?;
        Ok(Self { gateway, nginx, direct: Rig::direct(upstream), _upstream: process })
    }

    /// The routes that do not go through the gateway.
    pub(crate) fn beside(&self) -> impl Iterator<Item = Target<'_>> {
        let nginx = self.nginx.as_ref();
        let nginx = nginx.map(|nginx| Target::compatible("nginx", nginx, Billing::Told));
        nginx.into_iter().chain([Target::compatible("direct", &self.direct, Billing::Told)])
    }
}

impl<'a> Target<'a> {
    /// The compatible protocol.
    pub(crate) fn compatible(name: &'static str, subject: &'a Subject, billing: Billing) -> Self {
        let expect = match billing {
            Billing::Told => format!(r#""image_tokens":{}"#, upload::IMAGE_TOKENS),
            Billing::Hidden => String::new(),
        };
        let (form, ending) = (Form::Json(billing), Ending::Done);
        Self { name, subject, path: COMPATIBLE, form, ending, expect }
    }

    /// The gateway's own path, whose answer has the estimate beside the bill.
    pub(crate) fn aloud(name: &'static str, subject: &'a Subject) -> Self {
        let tokens = upload::IMAGE_TOKENS;
        let expect = format!(r#""image_tokens":{{"estimated":{tokens},"billed":{tokens}}}"#);
        Self { name, subject, path: "/ocr", form: Form::File, ending: Ending::Answer, expect }
    }

    /// The command of a crowd that requests streams with `events` events.
    pub(crate) fn listeners(
        &self,
        rig: &Rig,
        upload: &Upload,
        events: usize,
        crowd: Crowd,
    ) -> Result<Command, Failure> {
        let mut command = rig.asking("listen", self.subject.address)?;
        command.args(["--path", self.path, "--header", &self.subject.authorization]);
        command.args(["--header", &format!("Content-Type: {}", self.form.media_type())]);
        command.args(["--header", "Accept: text/event-stream"]);
        command.arg("--body").arg(self.form.file(rig, upload));
        command.args(["--events", &events.to_string(), "--ending", self.ending.name()]);
        command.args(["--expect", &self.expect]).args(crowd.arguments());
        Ok(command)
    }
}

impl Form {
    /// The path of the body for `upload`. [`Rig::new`] has written the picture's file.
    pub(crate) fn file(self, rig: &Rig, upload: &Upload) -> PathBuf {
        let name = upload.name.replace(' ', "-");
        rig.file(&match self {
            Self::File => format!("{name}.jpeg"),
            Self::Json(Billing::Told) => format!("{name}.told.json"),
            Self::Json(Billing::Hidden) => format!("{name}.hidden.json"),
        })
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::File => upload::JPEG,
            Self::Json(_) => upload::JSON,
        }
    }
}
