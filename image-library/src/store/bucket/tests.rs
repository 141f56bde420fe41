// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a bucket does with a store that works, and with every way in which one may not.

use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use rstest::rstest;

use super::scripted::{Scripted, Step, TIME_LIMIT, bucket_at};
use super::*;
use crate::store::probe;

const WHAT: &str = "the length of a test";

fn read(bucket: &Bucket) -> Result<Option<Vec<u8>>> {
    bucket.read("images/a.image", 1 << 20, WHAT)
}

fn failure(error: &Error) -> BucketFailure {
    match error {
        Error::Bucket { failure, .. } => *failure,
        other => panic!("{other}"),
    }
}

#[test]
fn what_was_written_is_read_and_listed() {
    let client = Arc::new(InMemory::new());
    let bucket = Bucket::in_memory(&client);
    bucket.require_empty().expect("is empty");
    assert!(bucket.create("images/a.image", b"one").expect("creates"));
    assert!(!bucket.create("images/a.image", b"two").expect("does not"));
    assert_eq!(read(&bucket).expect("reads"), Some(b"one".to_vec()));
    bucket
        .replace("images/a.image", b"three")
        .expect("replaces");
    bucket.replace("imagesque", b"").expect("replaces");
    bucket
        .replace("packs/ab/c.pack", b"pack")
        .expect("replaces");
    let names = |prefix: &str| -> Vec<String> {
        let listed = bucket.list(prefix).expect("lists");
        listed.into_iter().map(|stored| stored.name).collect()
    };
    assert_eq!(names("images/"), ["images/a.image"]);
    assert_eq!(names("packs/"), ["packs/ab/c.pack"]);
    assert!(matches!(
        bucket.require_empty(),
        Err(Error::NotEmpty { .. })
    ));
    assert!(bucket.exists("packs/ab/c.pack").expect("asks"));
    bucket.remove("packs/ab/c.pack").expect("removes");
    bucket.remove("packs/ab/c.pack").expect("is gone already");
    assert!(!bucket.exists("packs/ab/c.pack").expect("asks"));
    let part = bucket.read_part("images/a.image", 2, 100).expect("reads");
    assert_eq!(
        part.map(|part| (part.bytes, part.total)),
        Some((b"ree".to_vec(), 5))
    );
    let error = bucket.read("images/a.image", 4, WHAT).unwrap_err();
    assert!(matches!(error, Error::Limit { limit: 4, .. }), "{error}");
    // Two libraries in one bucket do not see each other.
    let other = Bucket::over(client, &"s3://memory/other".parse().unwrap(), TIME_LIMIT).unwrap();
    assert!(other.list("images/").expect("lists").is_empty());
}

#[test]
fn a_pack_is_uploaded_in_parts_and_its_file_is_gone() {
    let bucket = Bucket::in_memory(&Arc::new(InMemory::new()));
    for length in [100, 17 << 20] {
        let content: Vec<u8> = (0..length).map(|i: u32| (i / 7) as u8).collect();
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("1.pack-part");
        std::fs::write(&path, &content).expect("writes");
        bucket.adopt("packs/ab/c.pack", &path).expect("adopts");
        assert!(!path.exists());
        let object = bucket
            .open("packs/ab/c.pack")
            .expect("opens")
            .expect("is there");
        assert_eq!(object.length(), u64::from(length));
        let mut read = vec![0; length as usize];
        object.read_exact_at(&mut read, 0).expect("reads");
        assert!(read == content);
        let whole = bucket
            .read("packs/ab/c.pack", 64 << 20, WHAT)
            .expect("reads");
        assert!(whole.as_ref() == Some(&content));
        let error = object.read_exact_at(&mut read, 1).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_bucket_is_used_from_any_thread() {
    let bucket = Arc::new(Bucket::in_memory(&Arc::new(InMemory::new())));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .expect("a runtime");
    let inner = Arc::clone(&bucket);
    runtime.block_on(async move {
        let blocking = Arc::clone(&inner);
        let task = tokio::task::spawn_blocking(move || blocking.create("a", b"1"));
        assert!(task.await.expect("ends").expect("creates"));
        // Not what a server should do, but no panic either; nor when the last one ends here.
        assert!(inner.exists("a").expect("asks"));
        drop(inner);
    });
    drop(bucket);
}

#[test]
fn conditions_are_found_to_be_honoured_where_they_are() {
    let bucket = Bucket::in_memory(&Arc::new(InMemory::new()));
    assert!(probe(&bucket).expect("probes"));
    assert!(bucket.list("leases/").expect("lists").is_empty());
    let first = bucket
        .swap("x", b"1", None)
        .expect("works")
        .expect("is new");
    assert_eq!(bucket.swap("x", b"2", None).expect("works"), None);
    let second = bucket.swap("x", b"2", Some(&first)).expect("works");
    assert!(second.is_some());
    assert_eq!(bucket.swap("x", b"3", Some(&first)).expect("works"), None);
    bucket.remove("x").expect("removes");
    assert_eq!(
        bucket.swap("x", b"3", second.as_ref()).expect("works"),
        None
    );
}

#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    // Whatever is asked: done.
    let server = Scripted::start(vec![Step::status(200)]);
    assert!(!probe(&server.bucket()).expect("probes"));
    let server = Scripted::start(vec![
        Step::refusal(501, "NotImplemented"),
        Step::status(204),
    ]);
    assert!(!probe(&server.bucket()).expect("probes"));
}

#[test]
fn an_answer_of_500_is_asked_for_again() {
    let busy = Step::refusal(500, "InternalError");
    let slow_down = Step::refusal(503, "SlowDown");
    let server = Scripted::start(vec![busy, slow_down, Step::object(b"content")]);
    assert_eq!(
        read(&server.bucket()).expect("reads"),
        Some(b"content".to_vec())
    );
    assert_eq!(server.requests().len(), 3);
    assert_eq!(server.requests()[2], "GET /images/site/images/a.image");
}

#[test]
fn a_store_that_never_works_is_given_up_with_what_it_said() {
    let server = Scripted::start(vec![Step::refusal(500, "InternalError")]);
    let started = Instant::now();
    let error = read(&server.bucket()).unwrap_err();
    assert!(started.elapsed() < TIME_LIMIT * 2);
    assert_eq!(error.to_string(), "read s3://images/site/images/a.image");
    assert_eq!(failure(&error), BucketFailure::Answer);
    let source = std::error::Error::source(&error)
        .expect("says why")
        .to_string();
    assert!(source.contains("InternalError"), "{source}");
    assert!(
        error
            .hint()
            .expect("has one")
            .contains("the store's own log")
    );
    assert!(server.requests().len() > 2);
}

#[test]
fn a_store_that_is_silent_is_given_up_in_time() {
    let server = Scripted::start(vec![Step::Silence(Duration::from_secs(20))]);
    let started = Instant::now();
    let error = read(&server.bucket()).unwrap_err();
    assert!(started.elapsed() < TIME_LIMIT * 2);
    assert_eq!(failure(&error), BucketFailure::TooSlow);
}

#[test]
fn a_store_that_trickles_is_given_up_in_time() {
    let pause = Duration::from_millis(50);
    let server = Scripted::start(vec![Step::Trickle(vec![7; 1000], pause)]);
    let started = Instant::now();
    let error = read(&server.bucket()).unwrap_err();
    assert!(started.elapsed() < TIME_LIMIT * 2);
    assert_eq!(failure(&error), BucketFailure::TooSlow, "{error:?}");
    let server = Scripted::start(vec![Step::Trickle(vec![7; 10], pause)]);
    assert_eq!(read(&server.bucket()).expect("reads"), Some(vec![7; 10]));
}

#[test]
fn an_answer_that_comes_twice_is_not_taken_for_the_next_one() {
    let server = Scripted::start(vec![Step::Twice(b"first".to_vec()), Step::object(b"other")]);
    let bucket = server.bucket();
    assert_eq!(read(&bucket).expect("reads"), Some(b"first".to_vec()));
    let other = bucket.read("images/b.image", 100, WHAT).expect("reads");
    assert_eq!(other, Some(b"other".to_vec()));
}

#[test]
fn an_object_that_is_listed_twice_is_one() {
    let entry = |name: &str| {
        format!(
            "<Contents><Key>site/images/{name}.image</Key><Size>7</Size>\
             <LastModified>2026-11-01T10:00:00.000Z</LastModified></Contents>"
        )
    };
    let page = |entries: &str, more: &str| {
        let page = format!("<ListBucketResult>{entries}{more}</ListBucketResult>");
        Step::status(200).with_body(page.as_bytes())
    };
    let more = "<IsTruncated>true</IsTruncated>\
                <NextContinuationToken>b</NextContinuationToken>";
    let first = [entry("a"), entry("b"), entry("b")].concat();
    let second = [entry("b"), entry("c")].concat();
    let server = Scripted::start(vec![page(&first, more), page(&second, "")]);
    let listed = server.bucket().list("images/").expect("lists");
    let names: Vec<&str> = listed.iter().map(|stored| stored.name.as_str()).collect();
    assert_eq!(
        names,
        ["images/a.image", "images/b.image", "images/c.image"]
    );
}

#[test]
fn a_store_that_is_not_there_is_unreachable() {
    let error = read(&bucket_at("127.0.0.1:1")).unwrap_err();
    assert_eq!(failure(&error), BucketFailure::Unreachable);
    assert!(error.hint().expect("has one").contains("AWS_ENDPOINT_URL"));
}

#[rstest]
#[case::region(Step::status(301), BucketFailure::Region, "AWS_REGION")]
#[case::signature_of_another_region(
    Step::refusal(400, "AuthorizationHeaderMalformed"),
    BucketFailure::Region,
    "AWS_REGION"
)]
#[case::no_bucket(
    Step::refusal(404, "NoSuchBucket"),
    BucketFailure::NoBucket,
    "create the bucket"
)]
#[case::denied(
    Step::refusal(403, "AccessDenied"),
    BucketFailure::Denied,
    "AWS_ACCESS_KEY_ID"
)]
#[case::unknown_key(
    Step::refusal(401, "Unauthorized"),
    BucketFailure::Denied,
    "AWS_ACCESS_KEY_ID"
)]
fn what_time_does_not_mend_is_said_at_once(
    #[case] step: Step,
    #[case] expected: BucketFailure,
    #[case] hint: &str,
) {
    let server = Scripted::start(vec![step]);
    let bucket = server.bucket();
    type Operation = fn(&Bucket) -> Error;
    let operations: [Operation; 4] = [
        |bucket| read(bucket).unwrap_err(),
        |bucket| bucket.create("images/a.image", b"x").unwrap_err(),
        |bucket| bucket.list("images/").unwrap_err(),
        |bucket| bucket.remove("images/a.image").unwrap_err(),
    ];
    for (number, operation) in operations.iter().enumerate() {
        let error = operation(&bucket);
        assert_eq!(failure(&error), expected, "{error}");
        assert!(error.hint().expect("has one").contains(hint));
        assert!(error.to_string().contains("s3://images/site"), "{error}");
        assert!(!format!("{error:?}").contains("geheim"));
        assert_eq!(server.requests().len(), number + 1);
    }
}

#[test]
fn no_such_object_is_none() {
    let server = Scripted::start(vec![Step::refusal(404, "NoSuchKey")]);
    assert_eq!(read(&server.bucket()).expect("reads"), None);
    assert!(server.bucket().open("packs/x").expect("opens").is_none());
}

#[test]
fn a_body_that_breaks_off_is_fetched_again() {
    let half = Step::object(&[7; 100]).with_body(&[7; 50]).declaring(100);
    let server = Scripted::start(vec![half, Step::object(&[7; 100])]);
    assert_eq!(read(&server.bucket()).expect("reads"), Some(vec![7; 100]));
}

#[test]
fn a_body_of_another_length_than_its_range_is_never_taken() {
    let short = Step::object(&[7; 100]).with_body(&[7; 50]);
    let server = Scripted::start(vec![short, Step::object(&[7; 100])]);
    assert_eq!(read(&server.bucket()).expect("reads"), Some(vec![7; 100]));

    let always = Step::object(&[7; 100]).with_body(&[7; 50]);
    let error = read(&Scripted::start(vec![always]).bucket()).unwrap_err();
    let source = std::error::Error::source(&error)
        .expect("says why")
        .to_string();
    assert!(source.contains("expected 100 bytes, found 50"), "{source}");

    let long = Step::object(&[7; 100]).with_body(&[7; 150]);
    let error = read(&Scripted::start(vec![long]).bucket()).unwrap_err();
    assert_eq!(failure(&error), BucketFailure::Answer);
}

#[test]
fn a_range_that_was_not_asked_for_is_never_taken() {
    let other = Step::status(206)
        .with_header("Content-Range", "bytes 50-59/100".to_owned())
        .with_body(&[7; 10]);
    let server = Scripted::start(vec![other]);
    let error = server.bucket().read_part("packs/x", 0, 10).unwrap_err();
    assert_eq!(failure(&error), BucketFailure::Answer);
    // Nor the whole object in place of a range.
    let server = Scripted::start(vec![Step::status(200).with_body(&[7; 10])]);
    let error = server.bucket().read_part("packs/x", 0, 10).unwrap_err();
    assert_eq!(failure(&error), BucketFailure::Answer);
}

#[test]
fn an_object_that_exists_is_not_created() {
    let server = Scripted::start(vec![Step::refusal(412, "PreconditionFailed")]);
    assert!(
        !server
            .bucket()
            .create("images/a.image", b"x")
            .expect("asks")
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_creation_whose_answer_was_lost_is_known_by_its_content() {
    let taken = Step::refusal(412, "PreconditionFailed");
    for (found, expected) in [(b"mine", true), (b"hers", false)] {
        let steps = vec![Step::HangUp, taken.clone(), Step::object(found)];
        let server = Scripted::start(steps);
        let created = server.bucket().create("images/a.image", b"mine");
        assert_eq!(created.expect("asks"), expected);
    }
    let steps = vec![Step::HangUp, taken, Step::object(b"mine")];
    let bucket = Scripted::start(steps).bucket();
    let swapped = bucket.swap(
        "prune/floor",
        b"mine",
        Some(&crate::store::Version("\"v\"".into())),
    );
    assert!(swapped.expect("asks").is_some());
}

#[test]
fn a_store_without_conditions_still_creates_what_is_new() {
    let steps = vec![
        Step::refusal(501, "NotImplemented"),
        Step::refusal(404, "NoSuchKey"),
        Step::status(200),
    ];
    let server = Scripted::start(steps);
    assert!(
        server
            .bucket()
            .create("images/a.image", b"x")
            .expect("creates")
    );
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn an_upload_whose_last_answer_was_lost_is_found_to_be_there() {
    let begun = "<InitiateMultipartUploadResult><UploadId>u1</UploadId>\
                 </InitiateMultipartUploadResult>";
    let length = 9 << 20;
    let steps = |found: usize| {
        vec![
            Step::status(200).with_body(begun.as_bytes()),
            Step::status(200),
            Step::status(200),
            Step::HangUp,
            Step::refusal(404, "NoSuchUpload"),
            Step::status(200).declaring(found),
        ]
    };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("1.pack-part");
    std::fs::write(&path, vec![1; length]).expect("writes");
    let error = Scripted::start(steps(5))
        .bucket()
        .adopt("packs/x", &path)
        .unwrap_err();
    assert_eq!(failure(&error), BucketFailure::Answer);
    assert!(path.exists());
    let server = Scripted::start(steps(length));
    server.bucket().adopt("packs/x", &path).expect("adopts");
    assert!(!path.exists());
    assert!(server.requests()[5].starts_with("HEAD "));
}
