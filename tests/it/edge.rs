//! nginx in front of the gateway, configured as in the runbook: it passes on all requests that the gateway accepts, and
//! leaves the refusal of all others to the gateway.

use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};
use serde_json::json;

use crate::dropin::{CHAT, chat};
use crate::harness::{Answer, TestGateway, jpeg_of};
use crate::nginx::Nginx;

/// A gateway with its default limits, behind nginx.
struct Edge {
    gateway: TestGateway,
    nginx: Nginx,
}

impl Edge {
    /// `None` if nginx is not installed.
    async fn start() -> Option<Self> {
        let gateway = TestGateway::start().await;
        let address = gateway.address.trim_start_matches("http://").to_owned();
        let nginx = Nginx::before(&[address.clone(), address]).await?;
        Some(Self { gateway, nginx })
    }

    /// `server.max_body_bytes`.
    fn limit(&self) -> usize {
        usize::try_from(self.gateway.gateway.bounds.body_bytes).unwrap()
    }

    fn post(&self, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.nginx.address);
        self.gateway.http.post(url).bearer_auth(&self.gateway.key)
    }

    /// An image of this size as the body of a request.
    fn raw(&self, bytes: usize) -> RequestBuilder {
        self.post("/ocr?downscale=never").body(jpeg_of(bytes))
    }

    /// An image of this size as a file of a form.
    fn form(&self, bytes: usize) -> RequestBuilder {
        let picture = Part::bytes(jpeg_of(bytes)).file_name("page.jpg");
        self.post("/ocr?downscale=never").multipart(Form::new().part("file", picture))
    }
}

/// The length of a request's body.
fn length(request: RequestBuilder) -> usize {
    let request = request.build().unwrap();
    request.headers()["content-length"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_body_of_the_limit_passes_nginx_in_every_form() {
    let Some(edge) = Edge::start().await else { return };
    let frame = length(edge.form(10_000)) - 10_000;
    // DashScope accepts no single image of this size. The gateway's refusal shows that it has read all of it.
    for request in [edge.raw(edge.limit()), edge.form(edge.limit() - frame)] {
        let answer = Answer::of(request).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (413, "image_too_large"));
        assert_eq!(answer.json["limit"]["name"], "data_url_bytes");
    }
    let mut chat = chat();
    let picture = base64_simd::STANDARD.encode_to_string(jpeg_of(7_800_000));
    let item = json!({
        "type": "image_url", "image_url": { "url": format!("data:image/jpeg;base64,{picture}") },
    });
    chat["messages"][0]["content"] = json!([item, item, { "type": "text", "text": "Read." }]);
    let mut body = chat.to_string().into_bytes();
    body.resize(edge.limit(), b' ');
    let answer = Answer::of(edge.post(CHAT).body(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_the_gateway_behind_nginx_with_both_sizes() {
    let Some(edge) = Edge::start().await else { return };
    // The last size is just below nginx's limit.
    for bytes in [edge.limit(), edge.limit() + 1, (24 << 20) - 1_000] {
        let mut requests = vec![(edge.form(bytes), length(edge.form(bytes)))];
        if bytes > edge.limit() {
            requests.push((edge.raw(bytes), bytes));
        }
        for (request, sent) in requests {
            let answer = Answer::of(request).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (413, "body_too_large"));
            let name = "server.max_body_bytes";
            let told = json!({ "name": name, "actual": sent, "allowed": edge.limit() });
            assert_eq!(answer.json["limit"], told);
        }
    }
}
