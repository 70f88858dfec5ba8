//! What is read from the network, held against hostile bytes: any bytes are taken for what is read, and nothing panics or goes on
//! for ever. `cargo fuzz` calls it with what it finds, and a test with thousands of changes of real answers.
use rusuban::dyndns::{
    Addresses, Family, own,
    provider::{codes, read_mydns},
    query::{What, question, read},
    xml_texts,
};

/// Each reader, on the same bytes.
pub(crate) fn answers(bytes: &[u8]) {
    for what in [What::Address(Family::Ipv4), What::Address(Family::Ipv6), What::Chaos, What::Text, What::Servers] {
        let question = question("home.example.org", what).expect("a name");
        // The number of a question stands at the beginning of its answer.
        let id = bytes.first_chunk().map_or(0, |first| u16::from_be_bytes(*first));
        let _ = read(bytes, id, &question);
    }
    let text = String::from_utf8_lossy(bytes);
    let texts = xml_texts(&text);
    assert!(texts.len() <= 4096 && texts.iter().all(|(path, _)| path.len() <= 32));
    let place = reqwest_url("http://192.168.1.1:5000/rootDesc.xml");
    for (_, url) in own::control(&text, &place) {
        assert_eq!(url.host_str(), Some("192.168.1.1"), "only the one who answered is asked further");
    }
    let _ = (own::external(&text), own::read_echo(&text), own::lasting(&text, "eth0"), read_mydns(&text));
    let sent: Addresses = ["93.184.216.34".parse().expect("an address")].into_iter().collect();
    assert_eq!(codes("it", &text, sent, 3, &|text| text.chars().take(100).collect()).len(), 3);
}

fn reqwest_url(text: &str) -> reqwest::Url {
    text.parse().expect("an address")
}
