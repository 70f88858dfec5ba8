//! What conditions say, and that they say it rightly of random worlds.
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::watch::Trouble;

const PAGE: &str = r#"<html><body><h1> Our
    <b>shop</b></h1><ul><li class="new">one</li><li>two</li></ul><p>12</p>Welcome, Welcome</body></html>"#;
const JSON: &str =
    r#"{"status":"ok","count":3,"parts":[{"up":true,"ms":4},{"up":true,"ms":9}],"nothing":null,"name":"a \"b\""}"#;

fn told(condition: &str, found: &Found<'_>) -> Vec<String> {
    let condition = Condition::parse(condition, &EVERYTHING).unwrap_or_else(|wrong| panic!("{condition}: {wrong:?}"));
    condition.failing(found).into_iter().map(|failing| failing.told).collect()
}

fn page<'a>(body: &'a str, header: &'a dyn Fn(&str) -> Option<String>) -> Found<'a> {
    Found {
        status: Some(200),
        time: Duration::from_millis(1200),
        size: Some(5300),
        certificate: Some(3 * 86_400),
        http: Some(1.1),
        redirects: Some(0),
        url: Some("https://example.org/"),
        body: Some(body),
        header,
        ..Found::default()
    }
}

#[test]
fn what_holds_is_silent() {
    let header = |name: &str| (name == "content-type").then(|| "text/html; charset=utf-8".to_owned());
    for condition in [
        "status == 200",
        "status == 2xx and status != 3xx and status >= 200 and status < 300",
        "time < 2s and time > 1s 100ms",
        "size > 5 KiB and size <= 5300 B",
        "certificate > 2d and not certificate > 14d",
        "body contains \"Welcome\" and not body contains 'error'",
        "body matches \"W[a-z]+, W\" and not (body matches \"^x\" or status == 404)",
        "count(\"Welcome\") == 2 and count(\"nothing\") == 0",
        "header(\"Content-Type\") contains \"html\" and header(\"content-type\")",
        "not header(\"x-none\") and header(\"x-none\") != \"a\"",
        "css(\"h1\") == \"Our shop\" and css(\"li.new\") and not css(\"li.old\")",
        "count(css(\"li\")) >= 2 and css(\"p\") > 11 and css(\"p\") matches \"^[0-9]+$\"",
        "http >= 1.1 and redirects == 0 and url contains \"example\"",
        "status == 500 or status == 200",
        "((((status == 200))))",
    ] {
        assert_eq!(told(condition, &page(PAGE, &header)), Vec::<String>::new(), "{condition}");
    }
    for condition in [
        "json(\"$.status\") == \"ok\" and json(\"$.count\") == 3 and json(\"$.count\") < 4",
        "json(\"$.parts[*].up\") == true and json(\"$.parts[-1].ms\") >= 9 and count(json(\"$.parts\")) == 2",
        "json(\"$.nothing\") == null and not json(\"$.none\") and json(\"$.none\") != 1",
        "json(\"$.name\") contains \"b\" and json('$.name') == \"a \\\"b\\\"\"",
        "json(\"$.status\") != 3",
    ] {
        assert_eq!(told(condition, &page(JSON, &header)), Vec::<String>::new(), "{condition}");
    }
}

#[test]
fn what_fails_says_what_was_found_and_what_was_expected() {
    let header = |name: &str| (name == "server").then(|| "nginx\u{202e}\r\nx".to_owned());
    for (condition, expected) in [
        ("status == 404", "status was 200, expected 404"),
        ("status == 3xx or status == 404", "status was 200, expected 3xx or 404"),
        ("not status == 2xx", "status was 200, expected anything but 2xx"),
        ("time < 800ms", "time was 1.2 s, expected < 800 ms"),
        ("size <= 5 KiB", "size was 5.18 KiB, expected <= 5.00 KiB"),
        ("certificate > 14d", "the certificate ends in 3 days, expected > 14 days"),
        ("body contains \"Goodbye\"", "the page lacks \"Goodbye\""),
        ("not body contains \"Welcome\"", "the page has \"Welcome\""),
        ("body matches \"^Good\"", "the page does not match \"^Good\""),
        ("count(\"Welcome\") >= 3", "\"Welcome\" is there 2 times, expected >= 3"),
        ("count(css(\"h1\")) == 2", "css(\"h1\") is there once, expected 2"),
        ("css(\"h1\") == \"News\"", "css(\"h1\") was \"Our shop\", expected \"News\""),
        ("css(\"h2\") == \"News\"", "css(\"h2\") is not there, expected \"News\""),
        ("css(\"h2\")", "css(\"h2\") is not there"),
        ("not css(\"h1\")", "css(\"h1\") is there"),
        ("header(\"server\") == \"apache\"", "header(\"server\") was \"nginx\u{fffd}  x\", expected \"apache\""),
        ("json(\"$.a\") == 1", "the answer is no JSON: expected value at line 1 column 1"),
        ("not json(\"$.a\") == 1", "the answer is no JSON: expected value at line 1 column 1"),
        ("http >= 2", "http was 1.1, expected >= 2"),
        ("body contains \"x1\" or time < 1s", "the page lacks \"x1\", and time was 1.2 s, expected < 1.0 s"),
        ("redirect == \"https://a/\"", "redirect is not there, expected \"https://a/\""),
    ] {
        assert_eq!(told(condition, &page(PAGE, &header)), [expected], "{condition}");
    }
    for (condition, expected) in [
        ("json(\"$.parts[*].ms\") < 5", "json(\"$.parts[*].ms\") was 4, 9, expected < 5"),
        ("json(\"$.status\") == \"down\"", "json(\"$.status\") was \"ok\", expected \"down\""),
        ("json(\"$.none\") == 1", "json(\"$.none\") is not there, expected 1"),
        ("json(\"$.parts\") == 1", "json(\"$.parts\") was a list of 2, expected 1"),
    ] {
        assert_eq!(told(condition, &page(JSON, &header)), [expected], "{condition}");
    }
    let all = Condition::parse("status == 404 and time < 1s and certificate > 14d", &EVERYTHING).unwrap();
    let troubles: Vec<Trouble> = all.failing(&page(PAGE, &header)).into_iter().map(|failing| failing.trouble).collect();
    assert_eq!(troubles, [Trouble::Status(200), Trouble::Slow, Trouble::Certificate]);
}

#[test]
fn of_an_answer_that_goes_on_only_what_was_seen_is_sure() {
    let none = |_: &str| None;
    let cut = |condition: &str| told(condition, &Found { is_cut: true, ..page("some text", &none) });
    for sure in ["body contains \"some\"", "count(\"some\") >= 1", "not count(\"e\") < 1", "size > 1 KiB"] {
        assert_eq!(cut(sure), Vec::<String>::new(), "{sure}");
    }
    for unsure in ["not body contains \"error\"", "count(\"some\") < 2", "size < 9 KiB", "json(\"$.a\")"] {
        assert_eq!(cut(unsure).len(), 1, "{unsure}");
    }
    assert_eq!(
        cut("not body contains \"error\""),
        ["the answer goes on after 5.18 KiB, so it cannot be told whether `not body contains \"error\"`"]
    );
}

#[test]
fn what_is_wrong_is_told_where_it_is() {
    for (text, at, message) in [
        ("", "", "there is no condition"),
        ("status", "status", "`status` alone is no condition"),
        ("stauts == 200", "stauts", "`stauts` is not known here"),
        ("status = 200", "=", "`=` is not known here"),
        ("status == 200 && time < 1s", "&&", "`&&` is not known here"),
        ("status == 200 and", "", "here the condition ends, and something is missing"),
        ("status ==", "", "here the condition ends, and a value is missing"),
        ("status == 700", "700", "700 is no HTTP status"),
        ("status < 2xx", "<", "a class of statuses is neither less nor more"),
        ("time < 800", "800", "`time` is compared with a length of time such as `800ms` or `2s`"),
        ("time < 5 parsecs", "5 parsecs", "`5 parsecs` is neither a number nor a time or a size"),
        ("size > 3", "3", "`size` is compared with a size such as `500 kB` or `2 MiB`"),
        ("body contains Welcome", "Welcome", "expected a text in quotes here"),
        ("body contains \"Welcome", "\"Welcome", "this text has no end"),
        ("body contains \"\"", "\"\"", "everything contains this: it is empty"),
        ("body has \"x\"", "has", "`has` is not known here"),
        ("body matches \"(\"", "\"(\"", "this is no pattern: unclosed group"),
        ("status contains \"2\"", "contains", "`status` is no text, and only a text contains something"),
        ("(status == 200", "(", "this `(` is never closed"),
        ("status == 200)", ")", "this `)` closes nothing"),
        ("status == 200 time < 1s", "time", "expected `and` or `or` here"),
        ("header == \"x\"", "header", "`header` needs to know of what"),
        ("header(\"a b\")", "\"a b\"", "`a b` cannot be a header's name"),
        ("json(\"status\") == 1", "\"status\"", "a path into JSON begins with `$`, as in `$.status`"),
        ("css(\"h1[\") == \"x\"", "\"h1[\"", "this is no CSS selector"),
        ("count(time) > 1", "time", "`time` cannot be counted"),
        ("\"Welcome\"", "\"Welcome\"", "a text alone is no condition"),
        ("status == 200 and é", "é", "`é` is not known here"),
        ("status == 200 # x", "#", "`#` means nothing here"),
    ] {
        let wrong = Condition::parse(text, &EVERYTHING).unwrap_err();
        assert_eq!((&text[wrong.at.clone()], wrong.message.as_str()), (at, message), "{text}");
    }
    let deep = format!("{}status == 200{}", "(".repeat(60), ")".repeat(60));
    assert!(Condition::parse(&deep, &EVERYTHING).unwrap_err().message.contains("nested"));
    let large = format!("body matches \"{}\"", "[a-z]{1000}".repeat(100));
    assert_eq!(Condition::parse(&large, &EVERYTHING).unwrap_err().message, "this pattern is too large");
    let subject = Subject { name: "a port", words: &["time", "body"] };
    let wrong = Condition::parse("status == 200", &subject).unwrap_err();
    assert_eq!(
        (wrong.message.as_str(), wrong.hint.as_deref()),
        ("a port has no `status`", Some("what can be asked is `time`, `body`"))
    );
}

/// A random condition over three statuses, and what it comes to when the status is 200.
fn formulas() -> impl Strategy<Value = (String, bool)> {
    let leaf = prop_oneof![
        Just(("status == 200".to_owned(), true)),
        Just(("status != 200".to_owned(), false)),
        Just(("status < 300".to_owned(), true)),
        Just(("body contains \"x\"".to_owned(), true)),
        Just(("body contains \"y\"".to_owned(), false)),
        Just(("count(\"x\") >= 2".to_owned(), false)),
    ];
    leaf.prop_recursive(6, 40, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|(text, holds)| (format!("not ({text})"), !holds)),
            (inner.clone(), inner.clone()).prop_map(|((a, x), (b, y))| (format!("({a} and {b})"), x && y)),
            (inner.clone(), inner).prop_map(|((a, x), (b, y))| (format!("({a} or {b})"), x || y)),
        ]
    })
}

proptest! {
    #[test]
    fn logic_is_logic_and_what_is_written_back_says_the_same((text, holds) in formulas()) {
        let none = |_: &str| None;
        let condition = Condition::parse(&text, &EVERYTHING).unwrap();
        let found = page("x", &none);
        prop_assert_eq!(condition.failing(&found).is_empty(), holds, "{}", text);
        let again = Condition::parse(&condition.to_string(), &EVERYTHING).unwrap();
        prop_assert_eq!(&again, &condition);
        prop_assert_eq!(again.failing(&found).is_empty(), holds);
    }

    #[test]
    fn any_text_is_read_or_told_where_it_is_wrong(text in "[ a-z0-9(){}\\[\\]\"'<>=!.,$é%-]{0,60}") {
        if let Err(wrong) = Condition::parse(&text, &EVERYTHING) {
            prop_assert!(text.get(wrong.at).is_some());
        }
    }

    #[test]
    fn texts_are_written_so_that_they_read_as_the_same(text in "\\PC{1,30}", body in "\\PC{0,60}") {
        let condition = Condition::parse(&format!("body contains {}", write(&text)), &EVERYTHING).unwrap();
        let none = |_: &str| None;
        prop_assert_eq!(condition.failing(&page(&body, &none)).is_empty(), body.contains(&text));
    }
}
