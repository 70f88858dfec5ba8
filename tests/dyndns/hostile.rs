//! Thousands of changes of real answers.
use hickory_proto::{
    op::{Message, OpCode},
    rr::{
        RData, Record,
        rdata::{A, CNAME},
    },
};
use rusuban::dyndns::{
    Family,
    query::{What, question},
};

use super::targets::answers;
use crate::support::mutate::{Target, bombard};

#[test]
fn hostile_answers_are_refused_and_cost_nothing() {
    bombard("dyndns::hostile::hostile_answers_are_refused_and_cost_nothing", || {
        vec![Target { name: "dyndns", call: answers, seeds: seeds(), rounds: 4_000 }]
    });
}

fn seeds() -> Vec<Vec<u8>> {
    let query = question("home.example.org", What::Address(Family::Ipv4)).unwrap();
    let name = query.name().clone();
    let mut message = Message::response(7, OpCode::Query);
    message.add_query(query);
    message.add_answer(Record::from_rdata(name.clone(), 60, RData::CNAME(CNAME(name.clone()))));
    message.add_answer(Record::from_rdata(name, 60, RData::A(A("93.184.216.34".parse().unwrap()))));
    let texts: [&str; 5] = [
        "good 93.184.216.34\r\nnohost\r\nnochg 93.184.216.34\r\n",
        "<HTML><BODY>Login and IP address notify OK.<BR>login_status = 1.<BR><DT>REMOTE ADDRESS:</DT><DD>93.184.216.34</DD>",
        "<?xml version='1.0'?><root><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1\
         </serviceType><controlURL>/ctl/IPConn</controlURL></service></serviceList></device></root>",
        "<s:Envelope xmlns:s='x'><s:Body><u:R xmlns:u='y'><NewExternalIPAddress>93.184.216.34</NewExternalIPAddress></u:R></s:Body></s:Envelope>",
        "2a0104f800010002021122fffe334455 02 40 00 00     eth0\n2a0104f80001000200000000000000ff 02 40 00 20     eth0\n",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).chain([message.to_vec().unwrap()]).collect()
}
