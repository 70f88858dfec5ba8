//! A small name server over UDP: it answers from a table that others change, says who asks, and knows bad days.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NS, TXT},
    },
};
use rusuban::dyndns::Addresses;
use tokio::net::UdpSocket;

/// The records that a provider keeps and its name servers show.
pub(crate) type Zone = Arc<Mutex<BTreeMap<String, Addresses>>>;

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Not at all.
    Silent,
    /// With what is no message.
    Garbage,
    /// First as a stranger would who does not know the number, then rightly.
    Forged,
    /// It refuses.
    Refuses,
    /// To another question.
    Other,
    /// That the name is another name of one that it does not tell.
    Alias,
}

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    pub(crate) zone: Zone,
    /// Who asks, as far as this server says.
    pub(crate) caller: Arc<Mutex<Addresses>>,
    pub(crate) mood: Arc<Mutex<Mood>>,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, caller, mood, asked) =
            (Zone::default(), Arc::<Mutex<Addresses>>::default(), Arc::<Mutex<Mood>>::default(), Arc::default());
        let task =
            tokio::spawn(serve(socket, Arc::clone(&zone), Arc::clone(&caller), Arc::clone(&mood), Arc::clone(&asked)));
        Self { address, zone, caller, mood, asked, task }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    socket: UdpSocket,
    zone: Zone,
    caller: Arc<Mutex<Addresses>>,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    let mut buffer = vec![0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let question = Message::from_vec(&buffer[..length]).expect("a question that is none");
        let [query] = question.queries.as_slice() else { panic!("{question:?}") };
        let mood = *mood.lock().unwrap();
        let name = query.name().to_ascii().trim_end_matches('.').to_owned();
        asked.lock().unwrap().push(format!("{name} {} {}", query.query_class(), query.query_type()));
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.authoritative = true;
        answer.add_query(query.clone());
        let add = |answer: &mut Message, data: RData| {
            let mut record = Record::from_rdata(query.name().clone(), 60, data);
            record.dns_class = query.query_class();
            answer.add_answer(record);
        };
        match (query.query_class(), query.query_type()) {
            (DNSClass::CH, RecordType::TXT) if name == "whoami.test" => {
                let who = caller.lock().unwrap().ipv4.map_or_else(String::new, |address| address.to_string());
                add(&mut answer, RData::TXT(TXT::new(vec![who])));
            }
            (DNSClass::IN, RecordType::A) if name == "myip.test" => {
                let who = caller.lock().unwrap().ipv4;
                who.into_iter().for_each(|address| add(&mut answer, RData::A(A(address))));
            }
            (DNSClass::IN, RecordType::NS) => {
                if name == "example.org" {
                    add(&mut answer, RData::NS(NS(Name::from_ascii("ns.example.org.").unwrap())));
                }
            }
            (DNSClass::IN, kind @ (RecordType::A | RecordType::AAAA)) => match zone.lock().unwrap().get(&name) {
                Some(known) => known.each().for_each(|address| match (address, kind) {
                    (IpAddr::V4(address), RecordType::A) => add(&mut answer, RData::A(A(address))),
                    (IpAddr::V6(address), RecordType::AAAA) => add(&mut answer, RData::AAAA(AAAA(address))),
                    _ => {}
                }),
                None => answer.metadata.response_code = ResponseCode::NXDomain,
            },
            _ => answer.metadata.response_code = ResponseCode::NotImp,
        }
        match mood {
            Mood::Well => {}
            Mood::Silent => continue,
            Mood::Garbage => {
                let _ = socket.send_to(&[0xff; 700], from).await;
                continue;
            }
            Mood::Forged => {
                let mut forged = answer.clone();
                forged.metadata.id = forged.metadata.id.wrapping_add(1);
                forged.answers.clear();
                let _ = socket.send_to(&forged.to_vec().unwrap(), from).await;
            }
            Mood::Refuses => answer.metadata.response_code = ResponseCode::Refused,
            Mood::Other => answer.queries[0].name = Name::from_ascii("other.test.").unwrap(),
            Mood::Alias => {
                answer.answers.clear();
                add(&mut answer, RData::CNAME(CNAME(Name::from_ascii("elsewhere.test.").unwrap())));
            }
        }
        let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
    }
}
