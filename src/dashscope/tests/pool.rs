//! Several endpoints: the choice among them, and failures of one.

use super::*;
use crate::dashscope::error::CallFault;
use crate::dashscope::settings::EndpointSettings;
use crate::dashscope::{DropinAnswer, DropinCall, Protocol};
use crate::units::Money;

/// Two endpoints, `a` and `b`, the second with an upstream of its own.
struct Two {
    world: World,
    b: Upstream,
}

impl Two {
    async fn new(a: impl IntoIterator<Item = Step>, b: impl IntoIterator<Item = Step>) -> Self {
        Self::with(a, b, |_| {}).await
    }

    async fn with(
        a: impl IntoIterator<Item = Step>,
        b: impl IntoIterator<Item = Step>,
        change: impl FnOnce(&mut UpstreamSettings),
    ) -> Self {
        let b = Upstream::start(b).await;
        let address = b.address();
        let world = World::with(a, |settings| {
            let first = settings.pool().remove(0);
            let first = EndpointSettings { name: "a".to_owned(), ..first };
            let second =
                EndpointSettings { name: "b".to_owned(), base_url: address, ..first.clone() };
            settings.endpoints = vec![first, second];
            change(settings);
        });
        Self { world: world.await, b }
    }

    /// The number of calls that each received.
    fn asked(&self) -> (usize, usize) {
        (self.world.upstream.requests().len(), self.b.requests().len())
    }

    /// The endpoints that answer this many calls, one after the other.
    async fn answering(&self, calls: usize) -> Vec<String> {
        let mut endpoints = Vec::new();
        for _ in 0..calls {
            endpoints.push(self.world.call().await.unwrap().receipt.endpoint);
        }
        endpoints
    }
}

fn answers(number: usize) -> Vec<Step> {
    vec![answer(); number]
}

fn throttled(retry_after: &str) -> Step {
    let step = json(429, r#"{"code":"Throttling.RateQuota","message":"m"}"#);
    step.with_header(&format!("retry-after: {retry_after}"))
}

#[tokio::test]
async fn idle_endpoints_take_turns_by_their_weights() {
    let two = Two::with(answers(9), answers(9), |settings| settings.endpoints[0].weight = 3);
    let two = two.await;
    let of_a = two.answering(8).await.iter().filter(|endpoint| *endpoint == "a").count();
    assert_eq!((of_a, two.asked()), (6, (6, 2)));
}

/// At most five calls leave a queue in a second, so a call has always just left one of them.
#[tokio::test]
async fn endpoints_whose_calls_are_far_apart_take_turns_by_their_weights_too() {
    tokio::time::pause();
    let two = Two::with(answers(40), answers(40), |settings| settings.endpoints[0].weight = 3);
    let mut two = two.await;
    two.world.model = model(300, 600_000_000);
    let of_a = two.answering(32).await.iter().filter(|endpoint| *endpoint == "a").count();
    assert!((23..=25).contains(&of_a), "{of_a} of 32 at three times the weight");
}

#[tokio::test]
async fn a_call_leaves_for_no_region_but_those_that_its_caller_may_be_served_in() {
    let failed = json(500, r#"{"code":"InternalError"}"#);
    let mut two = Two::with(answers(9), vec![failed; 9], |settings| {
        settings.endpoints[0].region = "virginia".to_owned();
    })
    .await;
    two.world.model = Model::priced(&[("beijing", 300, 500)]);
    for _ in 0..4 {
        two.world.call().await.unwrap_err();
    }
    let (virginia, beijing) = two.asked();
    assert!(virginia == 0 && beijing > 0, "{virginia} and {beijing}");
}

#[tokio::test]
async fn a_call_is_paid_at_the_price_of_the_region_that_answered() {
    let failed = json(500, r#"{"code":"InternalError"}"#);
    let mut two = Two::with([failed], answers(1), |settings| {
        settings.endpoints[1].region = "virginia".to_owned();
    })
    .await;
    two.world.model = Model::priced(&[("beijing", 300, 500), ("virginia", 7, 1_000)]);
    let settlement = two.world.call().await.unwrap().receipt.settlement;
    assert_eq!(settlement.cost, Money::from_nanos(752 * 7 + 432 * 1_000));
}

#[tokio::test]
async fn a_failure_that_costs_nothing_is_repeated_elsewhere_on_the_same_permit() {
    let failed = json(500, r#"{"code":"InternalError"}"#);
    let two = Two::new([failed], answers(1)).await;
    let receipt = two.world.call().await.unwrap().receipt;
    assert_eq!((receipt.endpoint.as_str(), receipt.attempts), ("b", 2));
    assert_eq!((two.asked(), two.world.account()), ((1, 1), (1184, 0)));
}

#[tokio::test]
async fn a_failure_whose_bill_is_unknown_is_repeated_elsewhere_once() {
    let two = Two::new([Step::close()], answers(1)).await;
    let receipt = two.world.call().await.unwrap().receipt;
    assert_eq!((receipt.endpoint.as_str(), two.world.account()), ("b", (1184, 9_000)));
    let two = Two::new([Step::close()], [Step::close(), answer()]).await;
    two.world.call().await.unwrap_err();
    assert_eq!((two.asked(), two.world.account()), ((1, 1), (0, 18_000)));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_wrong_everywhere() {
    let wrong = json(400, r#"{"code":"InvalidParameter","message":"m"}"#);
    let two = Two::new(vec![wrong; 9], answers(9)).await;
    for _ in 0..6 {
        let _ = two.world.call().await;
    }
    let (a, b) = two.asked();
    assert_eq!((a, b), (3, 3), "it is not repeated, and takes nobody out");
}

#[tokio::test]
async fn a_refused_key_is_not_used_again_until_it_has_cooled_down() {
    let refused = json(401, r#"{"code":"InvalidApiKey","message":"m"}"#);
    let two = Two::new([refused, answer()], answers(9)).await;
    assert_eq!(two.answering(5).await, ["b"; 5]);
    assert_eq!(two.asked(), (1, 5));
    assert_eq!(two.world.total("endpoint_state"), 2);
    two.world.clock.skip(Duration::from_secs(10));
    assert!(two.answering(2).await.contains(&"a".to_owned()));
    assert_eq!(two.world.total("endpoint_state"), 0);
}

#[tokio::test]
async fn a_key_without_the_right_to_one_model_is_used_for_others() {
    let refused = json(403, r#"{"code":"Model.AccessDenied","message":"m"}"#);
    let mut two = Two::new([refused, answer()], answers(9)).await;
    assert_eq!(two.answering(3).await, ["b"; 3]);
    let mut other = Model::clone(&two.world.model);
    "other".clone_into(&mut other.name);
    two.world.model = Arc::new(other);
    assert!(two.answering(2).await.contains(&"a".to_owned()));
}

#[tokio::test]
async fn where_every_key_is_refused_the_account_is_what_is_wrong() {
    let refused = || vec![json(401, r#"{"code":"InvalidApiKey","message":"m"}"#); 9];
    let two = Two::new(refused(), refused()).await;
    for _ in 0..3 {
        assert_eq!(two.world.call().await.unwrap_err().fault.label(), "account");
    }
    assert_eq!(two.asked(), (1, 1));
}

#[tokio::test]
async fn a_throttled_account_is_left_alone_for_as_long_as_it_asks() {
    let two = Two::new([throttled("600"), answer()], answers(9)).await;
    assert_eq!(two.answering(4).await, ["b"; 4]);
    assert_eq!(two.asked(), (1, 4));
    two.world.clock.skip(Duration::from_secs(500));
    assert_eq!(two.answering(2).await, ["b"; 2]);
    two.world.clock.skip(Duration::from_secs(100));
    assert!(two.answering(2).await.contains(&"a".to_owned()));
}

/// BerriAI/litellm#34399: two deployments that share a quota, and a `Retry-After` that only one obeyed.
#[tokio::test]
async fn endpoints_of_one_account_obey_a_retry_after_together() {
    let share = |settings: &mut UpstreamSettings| {
        for endpoint in &mut settings.endpoints {
            endpoint.account = Some("one".to_owned());
        }
    };
    let two = Two::with([throttled("60")], answers(9), share).await;
    let error = two.world.call().await.unwrap_err();
    assert_eq!((error.fault.label(), two.asked()), ("throttled", (1, 0)));
    assert_eq!(two.world.call().await.unwrap_err().fault.label(), "throttled");
    assert_eq!(two.asked(), (1, 0));
}

/// BerriAI/litellm#40130: a later and longer cool-down that was discarded.
#[tokio::test]
async fn a_longer_retry_after_replaces_a_shorter_one() {
    let throttles = [throttled("1"), throttled("600"), answer()];
    let two = Two::new(throttles, answers(99)).await;
    two.answering(2).await;
    two.world.clock.skip(Duration::from_secs(1));
    while two.asked().0 < 2 {
        two.answering(1).await;
    }
    two.world.clock.skip(Duration::from_secs(500));
    assert_eq!(two.answering(4).await, ["b"; 4]);
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_left_alone_after_five_failures_and_tried_by_one_call_at_a_time()
 {
    let failed = json(503, r#"{"code":"ServiceUnavailable"}"#);
    let two = Two::with(vec![failed; 99], answers(999), |settings| {
        settings.breaker_cool_down_ms = 600_000;
    })
    .await;
    while two.asked().0 < 5 {
        two.answering(1).await;
    }
    two.answering(20).await;
    assert_eq!((two.asked().0, two.world.total("endpoint_state")), (5, 1));
    for probes in 1..5 {
        two.world.clock.skip(Duration::from_mins(10));
        two.answering(10).await;
        assert_eq!(two.asked().0, 5 + probes);
    }
}

#[tokio::test]
async fn a_total_outage_is_met_with_a_bounded_number_of_attempts_and_recovered_from_by_the_next_probe()
 {
    let down =
        || vec![json(500, r#"{"code":"InternalError"}"#); 999].into_iter().chain(answers(99));
    let two = Two::new(down(), down()).await;
    let (began, mut refused) = (two.world.clock.instant(), 0);
    for _ in 0..600 {
        let error = two.world.call().await.unwrap_err();
        if let CallFault::Unavailable { retry_after } = error.fault {
            assert!(error.attempts == 0 && retry_after <= Duration::from_secs(1));
            refused += 1;
        }
        two.world.clock.skip(Duration::from_millis(100));
    }
    // Five failures, and a probe a second each.
    let seconds = (two.world.clock.instant() - began).as_secs();
    let (most, (a, b)) = (usize::try_from(5 + seconds + 1).unwrap(), two.asked());
    assert!(a <= most && b <= most && refused > 400, "{a} and {b} of {most}, {refused} refused");
    two.world.upstream.forget_failures();
    two.b.forget_failures();
    two.world.clock.skip(Duration::from_secs(1));
    two.answering(20).await;
    assert_eq!(two.world.total("endpoint_state"), 0);
}

#[tokio::test]
async fn a_model_that_one_endpoint_does_not_have_is_asked_for_at_the_other() {
    let missing = json(404, r#"{"error":{"code":"model_not_found","message":"m"}}"#);
    let two = Two::new(vec![missing; 9], answers(9)).await;
    assert_eq!(two.answering(5).await, ["b"; 5]);
    assert_eq!(two.asked(), (1, 5));
}

fn stream(body: &str) -> Step {
    let length = body.len() + 10;
    Step::write(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
    .then_close()
}

/// A stream that breaks off after its first event.
fn broken_stream() -> Step {
    stream("data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n")
}

impl Two {
    /// The outcome of a call that requests a stream.
    async fn answer(&self) -> DropinAnswer {
        let call = DropinCall {
            protocol: Protocol::Compatible,
            body: vec![Bytes::from_static(b"{}")],
            stream: true,
            resolves_oss: false,
        };
        let deadline = self.world.clock.instant() + Duration::from_mins(1);
        let permit = self.world.permit().await;
        self.world.client.send_dropin(permit, &call, deadline).await.unwrap()
    }

    /// The reason why the stream of this call ends; `None` if the answer is whole.
    async fn end_of_stream(&self) -> Option<CallFault> {
        let DropinAnswer::Stream(mut streaming) = self.answer().await else { return None };
        while streaming.next().await.is_some() {}
        Some(streaming.end().await.unwrap_err().error.fault)
    }
}

#[tokio::test]
async fn a_stream_that_has_begun_is_not_repeated_elsewhere() {
    let two = Two::new([broken_stream()], answers(1)).await;
    assert_eq!(two.end_of_stream().await, Some(CallFault::Interrupted));
    assert_eq!((two.asked(), two.world.account()), ((1, 0), (0, 9_000)));
}

#[tokio::test]
async fn an_endpoint_whose_streams_break_off_is_left_alone_like_one_that_fails_otherwise() {
    let two = Two::with(vec![broken_stream(); 99], answers(99), |settings| {
        settings.breaker_cool_down_ms = 600_000;
    })
    .await;
    while two.asked().0 < 5 {
        two.end_of_stream().await;
    }
    for probes in 0..3 {
        for _ in 0..10 {
            two.end_of_stream().await;
        }
        assert_eq!(two.asked().0, 5 + probes);
        two.world.clock.skip(Duration::from_mins(10));
    }
}

#[tokio::test]
async fn what_lies_in_an_endpoint_s_own_storage_is_asked_for_there_only() {
    let failed = json(500, r#"{"code":"InternalError"}"#);
    let two = Two::new([failed, answer(), answer()], answers(9)).await;
    let call = DropinCall {
        protocol: Protocol::Compatible,
        body: vec![Bytes::from_static(b"{}")],
        stream: false,
        resolves_oss: true,
    };
    for _ in 0..2 {
        let deadline = two.world.clock.instant() + Duration::from_mins(1);
        let permit = two.world.permit().await;
        two.world.client.send_dropin(permit, &call, deadline).await.unwrap();
    }
    assert_eq!(two.asked(), (3, 0));
}
