//! Answers that are longer than a page, and the memory that they take.

use super::*;
use crate::dashscope::{DropinAnswer, DropinCall, Protocol, Streamed};

/// A valid answer whose text has so many bytes.
fn long_answer(length: usize) -> Step {
    let text = "x".repeat(length);
    json(
        200,
        &format!(
            r#"{{"choices":[{{"finish_reason":"stop","message":{{"content":"{text}"}}}}],
            "usage":{{"prompt_tokens":752,"completion_tokens":432}}}}"#
        ),
    )
}

#[tokio::test]
async fn a_long_answer_is_delivered_also_where_the_memory_of_uploads_has_no_room_for_it() {
    let world = World::new([long_answer(500_000), long_answer(1_200_000)]).await;
    for length in [500_000, 1_200_000] {
        assert_eq!(world.call().await.unwrap().text.len(), length);
        assert_eq!(world.memory.held(), 0);
    }
    assert_eq!(world.account(), (2 * 1184, 0));
}

#[tokio::test]
async fn a_call_that_may_write_more_than_there_is_room_for_is_not_made() {
    let world = World::new([]).await;
    let _uploads = world.memory.hold(MEMORY).unwrap();
    let bound = Usage { output: Tokens::new(32_768), ..BOUND };
    let deadline = world.clock.instant() + Duration::from_mins(1);
    let (admission, tab) = (&world.admission, &world.tab);
    let permit = admission.admit_bound(&world.tenant, &world.model, bound, deadline, tab).await;
    let call = page(b"picture".as_slice());
    let error = world.client.call(permit.unwrap(), &call, deadline).await.unwrap_err();
    let CallFault::NoRoom(no_room) = error.fault else { panic!("{error:?}") };
    assert!(no_room.allowed == MEMORY && no_room.actual > MEMORY, "{no_room}");
    assert!(error.attempts == 0 && error.fault.is_retryable());
    assert_eq!((world.account(), world.upstream.requests().len()), ((0, 0), 0));
}

#[tokio::test]
async fn an_answer_that_is_passed_on_counts_until_it_was_sent() {
    let world = World::new([long_answer(500_000)]).await;
    let call = DropinCall {
        protocol: Protocol::Compatible,
        body: vec![Bytes::from_static(b"{}")],
        stream: false,
        resolves_oss: false,
    };
    let deadline = world.clock.instant() + Duration::from_mins(1);
    let answer = world.client.send_dropin(world.permit().await, &call, deadline).await;
    let Ok(DropinAnswer::Whole { body, .. }) = answer else { panic!("{answer:?}") };
    assert!(body.len() > 500_000 && world.memory.held() > 400_000);
    drop(body);
    assert_eq!(world.memory.held(), 0);
}

#[tokio::test]
async fn an_event_that_grows_beyond_the_memory_is_read_on() {
    let first = "data: {\"choices\":[{\"delta\":{\"content\":\"half\"}}]}\n\n";
    let last =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":752,\"completion_tokens\":432}}\n\n";
    let long = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
        "x".repeat(1_200_000)
    );
    let events = format!("{first}{long}{last}data: [DONE]\n\n");
    let step = Step::write(&format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{events}",
        events.len()
    ));
    let world = World::new([step]).await;
    let deadline = world.clock.instant() + Duration::from_mins(1);
    let call = page(b"picture".as_slice());
    let streamed = world.client.stream(world.permit().await, &call, deadline).await;
    let Ok(Streamed::Stream(mut stream)) = streamed else { panic!("{streamed:?}") };
    let mut length = 0;
    while let Some(piece) = stream.next().await {
        length += piece.text().len();
    }
    assert!(stream.end().await.is_ok());
    assert_eq!((length, world.account(), world.memory.held()), (1_200_004, (1184, 0), 0));
}
