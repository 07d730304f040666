//! Temporary uploads, following the vendor's page "Upload local files to get temporary URLs".
//!
//! A client requests a policy from DashScope and posts its file to the object store that the policy names. Then
//! `oss://` and the file's key is an address for requests. This module emulates both sides. It checks only that the key
//! of an upload is in the directory that the policy allows: the signature is not verified, a policy does not expire,
//! and a file is bound neither to its model nor to its account.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, Multipart, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::Refusal;
use crate::head::{api_key, query_value};
use crate::service::Service;
use crate::{exchange, native};

/// Megabytes of the largest file.
const MOST_MEGABYTES: usize = 100;

/// Bytes of the fields around a file.
const LONGEST_FIELDS: usize = 64 * 1024;

/// The validity of a policy in seconds, as it states it.
const SECONDS_TO_UPLOAD: u64 = 300;

/// The path of the emulated object store.
const STORE: &str = "/__oss";

/// The routes of DashScope's side and of the object store's.
pub(crate) fn routes() -> Router<Arc<Service>> {
    let longest = MOST_MEGABYTES * 1024 * 1024 + LONGEST_FIELDS;
    Router::new()
        .route("/api/v1/uploads", get(policy))
        .route(STORE, post(store).layer(DefaultBodyLimit::max(longest)))
}

/// Answers the policy for one directory of the store.
async fn policy(
    State(service): State<Arc<Service>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let request_id = service.identifiers.next();
    if let Err(refusal) = admitted(&service, query.as_deref(), &headers) {
        return exchange::plain(refusal.status, &native::error(&refusal, &request_id));
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let directory = format!("dashscope-instant/{}", service.identifiers.next());
    let conditions = json!({ "conditions": [["starts-with", "$key", format!("{directory}/")]] });
    let data = json!({
        "policy": STANDARD.encode(conditions.to_string()),
        "signature": service.identifiers.next(),
        "upload_dir": directory,
        "upload_host": format!("http://{host}{STORE}"),
        "expire_in_seconds": SECONDS_TO_UPLOAD,
        "max_file_size_mb": MOST_MEGABYTES,
        "oss_access_key_id": "emulator",
        "x_oss_object_acl": "private",
        "x_oss_forbid_overwrite": "true"
    });
    exchange::plain(200, &json!({ "request_id": request_id, "data": data }))
}

fn admitted(service: &Service, query: Option<&str>, headers: &HeaderMap) -> Result<(), Refusal> {
    service.authenticate(api_key(headers))?;
    if query_value(query, "action").as_deref() != Some("getPolicy") {
        return Err(Refusal::invalid_parameter("Invalid parameter: action"));
    }
    let model = query_value(query, "model").filter(|model| !model.is_empty());
    let missing = || Refusal::invalid_parameter("you must provide a model parameter");
    model.map(drop).ok_or_else(missing)
}

/// Stores one file.
async fn store(State(service): State<Arc<Service>>, form: Multipart) -> Response {
    match Upload::read(form).await.and_then(|upload| upload.judged(&service)) {
        Ok(Upload { fields, key, file }) => {
            service.world.host(address(&key), file);
            let wants_ok =
                fields.get("success_action_status").is_some_and(|status| status == "200");
            let status = if wants_ok { StatusCode::OK } else { StatusCode::NO_CONTENT };
            status.into_response()
        }
        Err(denial) => denial.response(),
    }
}

/// A received form.
struct Upload {
    /// The fields before the file.
    fields: HashMap<String, String>,
    key: String,
    file: Bytes,
}

impl Upload {
    /// Reads a form up to its file. The real store, too, ignores the fields after it.
    async fn read(mut form: Multipart) -> Result<Self, Denial> {
        let mut fields = HashMap::new();
        while let Some(field) = form.next_field().await.map_err(|error| Denial::unread(&error))? {
            let name = field.name().unwrap_or_default().to_owned();
            if name == "file" {
                let file = field.bytes().await.map_err(|error| Denial::unread(&error))?;
                let key = fields.remove("key").ok_or(Denial::incomplete("key"))?;
                return Ok(Self { fields, key, file });
            }
            let text = field.text().await.map_err(|error| Denial::unread(&error))?;
            fields.insert(name, text);
        }
        Err(Denial::incomplete("file"))
    }

    /// Checks a form against its policy.
    fn judged(self, service: &Service) -> Result<Self, Denial> {
        for name in ["OSSAccessKeyId", "Signature"] {
            if self.fields.get(name).is_none_or(String::is_empty) {
                return Err(Denial::incomplete(name));
            }
        }
        let policy = self.fields.get("policy").ok_or(Denial::incomplete("policy"))?;
        if !allowed_start(policy).is_some_and(|start| self.key.starts_with(&start)) {
            return Err(Denial(
                StatusCode::FORBIDDEN,
                "AccessDenied",
                "Invalid according to Policy: Policy Condition failed: $key".to_owned(),
            ));
        }
        let keeps = self.fields.get("x-oss-forbid-overwrite").is_some_and(|keeps| keeps == "true");
        if keeps && service.world.hosting.find(&address(&self.key)).is_some() {
            let message = "The object you specified already exists and can not be overwritten.";
            return Err(Denial(StatusCode::CONFLICT, "FileAlreadyExists", message.to_owned()));
        }
        Ok(self)
    }
}

/// The address by which requests name the file of a key.
fn address(key: &str) -> String {
    format!("oss://{key}")
}

/// The prefix that a policy requires of keys; `None` if it is not a policy of this emulator.
fn allowed_start(policy: &str) -> Option<String> {
    let policy: Value = serde_json::from_slice(&STANDARD.decode(policy).ok()?).ok()?;
    policy.pointer("/conditions/0/2")?.as_str().map(str::to_owned)
}

/// The store's response to a form that it rejects: a status, a code and a message.
#[derive(Debug)]
struct Denial(StatusCode, &'static str, String);

impl Denial {
    fn incomplete(field: &str) -> Self {
        let message = format!("The form has no field {field} in front of its file.");
        Self(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    fn unread(error: &MultipartError) -> Self {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = "Your proposed upload exceeds the maximum allowed size.".to_owned();
            return Self(StatusCode::BAD_REQUEST, "EntityTooLarge", message);
        }
        let message = "The body of your POST request is not well-formed multipart/form-data.";
        Self(StatusCode::BAD_REQUEST, "MalformedPOSTRequest", message.to_owned())
    }

    fn response(self) -> Response {
        let Self(status, code, message) = self;
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Error><Code>{code}</Code><Message>{message}</Message></Error>\n"
        );
        (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
    }
}
