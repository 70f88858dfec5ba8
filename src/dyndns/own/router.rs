//! The router, by UPnP: found on the local network (SSDP), and asked over HTTP (SOAP) for its outer address.
//!
//! Whoever is on the local network may answer: only the one who answered is asked further, never another address that it names.
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use tokio::{net::UdpSocket, time::Instant};

use crate::dyndns::{
    Family, Lines,
    ask::{NoAnswer, said},
    xml,
};

/// Where routers listen.
const EVERYBODY: (Ipv4Addr, u16) = (Ipv4Addr::new(239, 255, 255, 250), 1900);
/// They are waited for so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// A description has no more.
const MOST: usize = 64 << 10;
/// So many that answer are asked further.
const MOST_ROUTERS: usize = 4;
/// What a router that has a line outwards calls that.
const SERVICES: [&str; 4] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// The router's outer address. `place` is `find`, or where its description is.
pub(super) async fn ask(place: &str, lines: &Lines) -> Result<IpAddr, String> {
    let places = if place == "find" {
        find().await.map_err(|error| format!("look for a router: {error}"))?
    } else {
        vec![self::place(place)?]
    };
    let mut why = "no router answers to UPnP here; is it switched on in the router? In a container that is not on the host's network \
                   none can be found: write its address, `router = \"http://192.168.1.1:5000/rootDesc.xml\"`"
        .to_owned();
    for place in places.into_iter().take(MOST_ROUTERS) {
        match external_of(&place, lines).await {
            Ok(address) => return Ok(address),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// The address of a description, if it can be one: plain http to an address at home, as routers speak.
pub(super) fn place(text: &str) -> Result<Url, String> {
    let wrong = || {
        format!(
            "`{text}` is no address of a router's description: use `find`, or `http://192.168.1.1:5000/rootDesc.xml`"
        )
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let near = |address: Ipv4Addr| address.is_private() || address.is_loopback() || address.is_link_local();
    let is_near = url.host_str().and_then(|host| host.parse().ok()).is_some_and(near);
    (url.scheme() == "http" && is_near).then_some(url).ok_or_else(wrong)
}

/// Asks everybody on the local network.
async fn find() -> std::io::Result<Vec<Url>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    for target in
        ["urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:device:InternetGatewayDevice:2"]
    {
        let question = format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 2\r\nST: {target}\r\n\r\n"
        );
        socket.send_to(question.as_bytes(), EVERYBODY).await?;
    }
    let mut until = Instant::now() + PATIENCE;
    let (mut found, mut buffer) = (Vec::new(), vec![0; 2048]);
    while let Ok(received) = tokio::time::timeout_at(until, socket.recv_from(&mut buffer)).await {
        let (length, from) = received?;
        if let Some(url) = location(&String::from_utf8_lossy(&buffer[..length]), from.ip())
            && !found.contains(&url)
        {
            found.push(url);
            if found.len() == MOST_ROUTERS {
                break;
            }
        }
        // One is the usual number: whoever else is there answers at about the same time.
        if !found.is_empty() {
            until = until.min(Instant::now() + Duration::from_millis(300));
        }
    }
    Ok(found)
}

/// Where an answer says that the description is, if that is the one who answered.
fn location(answer: &str, from: IpAddr) -> Option<Url> {
    let mut lines = answer.lines();
    lines.next().filter(|line| line.starts_with("HTTP/1.1 200"))?;
    let mut values = lines.filter_map(|line| line.split_once(':'));
    let (_, value) = values.find(|(name, _)| name.trim().eq_ignore_ascii_case("location"))?;
    let url = place(value.trim()).ok()?;
    (url.host_str().and_then(|host| host.parse().ok()) == Some(from)).then_some(url)
}

async fn external_of(description: &Url, lines: &Lines) -> Result<IpAddr, String> {
    let ask = async |request| lines.ask(Some(Family::Ipv4), request, MOST).await.map_err(NoAnswer::why);
    let reply = ask(Request::new(Method::GET, description.clone())).await?;
    if reply.status != 200 {
        return Err(format!("{description} answered {}", reply.status));
    }
    let lines_out = control(&reply.body, description);
    if lines_out.is_empty() {
        return Err(format!("{description} describes no line outwards"));
    }
    let mut why = String::new();
    for (service, url) in lines_out {
        let mut request = Request::new(Method::POST, url);
        let body = format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:GetExternalIPAddress \
             xmlns:u=\"{service}\"/></s:Body></s:Envelope>"
        );
        *request.body_mut() = Some(body.into());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=\"utf-8\""));
        if let Ok(action) = HeaderValue::try_from(format!("\"{service}#GetExternalIPAddress\"")) {
            request.headers_mut().insert(HeaderName::from_static("soapaction"), action);
        }
        let reply = ask(request).await?;
        match external(&reply.body) {
            Some(address) if reply.status == 200 => return Ok(address),
            _ => why = format!("the router answered {}: {}", reply.status, said(&reply.body)),
        }
    }
    Err(why)
}

/// The lines outwards that a description names: what each is called, and where it is asked, on the same server.
#[must_use]
pub fn control(description: &str, place: &Url) -> Vec<(&'static str, Url)> {
    let texts = xml::texts(description);
    let (mut found, mut service) = (Vec::new(), None);
    for (path, text) in &texts {
        match path.as_slice() {
            [.., "service", "serviceType"] => service = SERVICES.into_iter().find(|known| known == text),
            [.., "service", "controlURL"] => {
                if let (Some(service), Ok(url)) = (service.take(), place.join(text))
                    && url.host() == place.host()
                    && url.scheme() == "http"
                    && found.len() < MOST_ROUTERS
                {
                    found.push((service, url));
                }
            }
            _ => {}
        }
    }
    found
}

/// The address in a router's answer.
#[must_use]
pub fn external(answer: &str) -> Option<IpAddr> {
    let address: Ipv4Addr = xml::first(&xml::texts(answer), "NewExternalIPAddress")?.parse().ok()?;
    // A line that is down has none.
    (!address.is_unspecified()).then_some(IpAddr::V4(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_who_answered_is_asked_further() {
        let answer = |url: &str| format!("HTTP/1.1 200 OK\r\nST: x\r\nLocation: {url}\r\n\r\n");
        let from: IpAddr = "192.168.1.1".parse().unwrap();
        assert!(location(&answer("http://192.168.1.1:5000/desc.xml"), from).is_some());
        for url in [
            "http://192.168.1.2/desc.xml",
            "http://93.184.216.34/",
            "https://192.168.1.1/",
            "http://169.254.169.254/",
            "x",
        ] {
            assert_eq!(location(&answer(url), from), None, "{url}");
        }
        let description = "<root><device><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType>\
             <controlURL>http://93.184.216.34/x</controlURL></service><service>\
             <serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType><controlURL>/ppp</controlURL></service>\
             </serviceList></device></root>";
        let place = Url::parse("http://192.168.1.1:5000/desc.xml").unwrap();
        let found = control(description, &place);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.as_str(), "http://192.168.1.1:5000/ppp");
    }
}
