//! UDP flows on their way from one process to the next: a line for each, and its socket beside it.
//!
//! One message has the flows of one address, as many as go with it. What a line says is the proxy's affair.

use std::os::fd::{AsFd as _, OwnedFd};

use sealane_proxy::handover::{LeftFlow, LeftFlows};

use super::{Channel, DESCRIPTORS_MAX, Kind, Label, MESSAGE_MAX, Message, Room};

/// In front of the label.
const MARK: &str = "flows ";

/// Sends all of them. What is sent is closed here; the flows themselves go on.
///
/// # Errors
/// The other process is gone, or the system lets no more descriptors travel: the rest begins anew there.
pub async fn send(channel: &Channel, left: Vec<LeftFlows>) -> std::io::Result<usize> {
    let mut sent = 0;
    for address in left {
        let label = Label {
            room: Room::Proxy,
            kind: Kind::Datagram,
            asked: address.address,
            name: address.listener.to_string(),
        };
        let mut flows = address
            .flows
            .into_iter()
            .map(LeftFlow::into_parts)
            .peekable();
        while flows.peek().is_some() {
            let mut portion = Portion::new(&label);
            while portion.sockets.len() < DESCRIPTORS_MAX
                && let Some((line, socket)) = flows.next_if(|(line, _)| portion.has_room(line))
            {
                portion.add(&line, socket);
            }
            if portion.sockets.is_empty() {
                flows.next(); // a line that fits no message
                continue;
            }
            let sockets: Vec<_> = portion
                .sockets
                .iter()
                .map(|socket| socket.as_fd())
                .collect();
            channel.send(&portion.text, &sockets).await?;
            sent += sockets.len();
        }
    }
    Ok(sent)
}

struct Portion {
    text: String,
    sockets: Vec<OwnedFd>,
}

impl Portion {
    fn new(label: &Label) -> Self {
        Self {
            text: format!("{MARK}{label}"),
            sockets: Vec::new(),
        }
    }

    const fn has_room(&self, line: &str) -> bool {
        self.text.len() + 1 + line.len() <= MESSAGE_MAX
    }

    fn add(&mut self, line: &str, socket: OwnedFd) {
        self.text.push('\n');
        self.text.push_str(line);
        self.sockets.push(socket);
    }
}

/// The flows of a message, and whose they are. `None`: it is about something else.
#[must_use]
pub fn receive(message: &mut Message) -> Option<(Label, Vec<LeftFlow>)> {
    let mut lines = message.text.strip_prefix(MARK)?.split('\n');
    let label = Label::parse(lines.next()?)?;
    let sockets = message.descriptors.drain(..);
    let flows = lines.zip(sockets);
    let flows = flows.filter_map(|(line, socket)| LeftFlow::from_parts(line, socket));
    Some((label, flows.collect()))
}
