//! Servers that speak PostgreSQL's protocol up to a point, and then send too much, nonsense, or nothing.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// How a server misbehaves: when, and what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Never answers the client.
    Silent,
    /// Answers as an HTTP server does.
    Http,
    /// Announces a message of 2 GiB instead of authentication, and sends it.
    StartImpossible,
    /// Announces the longest possible message instead of authentication, and sends it.
    StartLarge,
    /// Sends notices without end, after authentication.
    StartNotices,
    /// Sends distinct parameters without end, after authentication.
    StartParameters,
    /// Refuses the client with an error of 300 KB.
    StartError,
    /// Sends one byte of a message every 100 ms.
    StartSlow,
    /// Requests four billion iterations of SCRAM's hash.
    StartScram,
    /// Sends the longest possible notice without a request.
    IdleLarge,
    /// Sends distinct parameters without end, without a request.
    IdleParameters,
    /// Sends rows without end, without a request.
    IdleRows,
    /// Ends each session as soon as it is ready.
    IdleClose,
    /// Announces a message of 2 GiB as the answer to a query, and sends it.
    AnswerImpossible,
    /// Sends the longest possible row.
    AnswerLarge,
    /// Sends rows of 1 MiB without end.
    AnswerRows,
    /// Sends rows without columns, the shortest messages, without end.
    AnswerEmptyRows,
    /// Sends command tags without end.
    AnswerTags,
    /// Sends notices without end.
    AnswerNotices,
    /// Sends distinct parameters without end.
    AnswerParameters,
    /// Reports that it is ready without end.
    AnswerReady,
    /// Never answers a query.
    AnswerSilent,
    /// Closes in the middle of an answer.
    AnswerCut,
    /// Sends a message of no known type.
    AnswerUnknown,
    /// Reports an unknown transaction status, so that the protocol cannot be followed, and then a message of 2 GiB.
    AnswerUnfollowed,
    /// Answers each query with an error of several lines and escape sequences.
    AnswerError,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 26] = [
        Self::Silent,
        Self::Http,
        Self::StartImpossible,
        Self::StartLarge,
        Self::StartNotices,
        Self::StartParameters,
        Self::StartError,
        Self::StartSlow,
        Self::StartScram,
        Self::IdleLarge,
        Self::IdleParameters,
        Self::IdleRows,
        Self::IdleClose,
        Self::AnswerImpossible,
        Self::AnswerLarge,
        Self::AnswerRows,
        Self::AnswerEmptyRows,
        Self::AnswerTags,
        Self::AnswerNotices,
        Self::AnswerParameters,
        Self::AnswerReady,
        Self::AnswerSilent,
        Self::AnswerCut,
        Self::AnswerUnknown,
        Self::AnswerUnfollowed,
        Self::AnswerError,
    ];
}

/// The body length in the longest message of the protocol, and in one that is impossible.
const LONGEST: u32 = 0x3fff_ffff;
const IMPOSSIBLE: u32 = 0x7fff_fff0;

/// A server on a port of 127.0.0.1, with a thread for each client. It runs until the process ends.
#[derive(Debug)]
pub struct RogueServer {
    address: SocketAddr,
    most_sent: Arc<AtomicU64>,
    clients: Arc<AtomicUsize>,
}

impl RogueServer {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// Panics if it cannot listen.
    #[must_use]
    pub fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let (most_sent, clients) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (most, count) = (Arc::clone(&most_sent), Arc::clone(&clients));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Relaxed);
                let most = Arc::clone(&most);
                thread::spawn(move || {
                    let mut session = Session { stream, sent: 0, most, last: Vec::new() };
                    // Fails once the client has closed.
                    let _ = session.run(fault);
                });
            }
        });
        Self { address, most_sent, clients }
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a URL with this address and a password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://u:p@{}/d", self.address)
    }

    /// Returns the most bytes that the kernel accepted for one client.
    #[must_use]
    pub fn most_sent(&self) -> u64 {
        self.most_sent.load(Relaxed)
    }

    /// Returns how many clients have connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }
}

struct Session {
    stream: TcpStream,
    sent: u64,
    most: Arc<AtomicU64>,
    /// The body of the last request.
    last: Vec<u8>,
}

impl Session {
    fn run(&mut self, fault: Fault) -> io::Result<()> {
        if fault == Fault::Silent {
            return self.wait();
        }
        self.startup_message()?;
        self.start(fault)?;
        self.idle(fault)?;
        while let Some(kind) = self.request()? {
            match kind {
                b'X' => return Ok(()),
                // Of the extended protocol, only the end of a request is answered.
                b'Q' | b'S' => self.answer(fault)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn start(&mut self, fault: Fault) -> io::Result<()> {
        match fault {
            Fault::Http => {
                self.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Fault::StartImpossible => self.long_message(b'R', IMPOSSIBLE)?,
            Fault::StartLarge => self.long_message(b'R', LONGEST)?,
            Fault::StartNotices => {
                self.send(&message(b'R', &[0; 4]))?;
                self.repeat(&notice())?;
            }
            Fault::StartParameters => {
                self.send(&message(b'R', &[0; 4]))?;
                self.parameters()?;
            }
            Fault::StartError => {
                self.send(&error("FATAL", "XX000", &"A".repeat(300_000)))?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Fault::StartScram => {
                self.send(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))?;
                let Some(b'p') = self.request()? else { return Ok(()) };
                let nonce = self.last.windows(2).position(|part| part == b"r=").map_or(&[][..], |at| &self.last[at..]);
                let challenge = [b"\0\0\0\x0b", nonce, b"XYZ,s=c2FsdHNhbHRzYWx0,i=4000000000"].concat();
                self.send(&message(b'R', &challenge))?;
                self.wait()?;
            }
            Fault::StartSlow => {
                self.send(&[b'R', 0, 0, 1, 0])?;
                loop {
                    self.send(&[0])?;
                    thread::sleep(Duration::from_millis(100));
                }
            }
            _ => {}
        }
        let version = message(b'S', b"server_version\x0015.3\0");
        self.send(&[message(b'R', &[0; 4]), version, message(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]), ready()].concat())
    }

    fn idle(&mut self, fault: Fault) -> io::Result<()> {
        match fault {
            Fault::IdleLarge => self.long_message(b'N', LONGEST),
            Fault::IdleParameters => self.parameters(),
            Fault::IdleRows => self.repeat(&row(100)),
            Fault::IdleClose => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    fn answer(&mut self, fault: Fault) -> io::Result<()> {
        let columns = message(b'T', &[&[0, 1][..], b"?column?\0", &[0; 18]].concat());
        match fault {
            Fault::AnswerImpossible => self.long_message(b'D', IMPOSSIBLE),
            Fault::AnswerLarge => {
                self.send(&columns)?;
                self.long_message(b'D', LONGEST)
            }
            Fault::AnswerRows => {
                self.send(&columns)?;
                self.repeat(&row(1 << 20))
            }
            Fault::AnswerEmptyRows => {
                self.send(&message(b'T', &[0, 0]))?;
                self.repeat(&message(b'D', &[0, 0]))
            }
            Fault::AnswerTags => self.repeat(&message(b'C', b"\0")),
            Fault::AnswerNotices => self.repeat(&notice()),
            Fault::AnswerParameters => self.parameters(),
            Fault::AnswerReady => self.repeat(&ready()),
            Fault::AnswerSilent => self.wait(),
            Fault::AnswerCut => {
                self.send(&columns[..9])?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Fault::AnswerUnknown => self.send(&message(0xff, &[0; 50])),
            Fault::AnswerUnfollowed => {
                self.send(&[message(b'C', b"SELECT 1\0"), message(b'Z', b"X")].concat())?;
                self.long_message(b'N', IMPOSSIBLE)
            }
            Fault::AnswerError => {
                let text = "first\n2026-12-01T12:00:00Z ERROR forged\r\u{1b}[31mred\u{1b}]0;title\u{7}";
                self.send(&[error("ERROR", "42601", text), ready()].concat())
            }
            _ => self.send(&[message(b'C', b"SELECT 1\0"), ready()].concat()),
        }
    }

    /// Reads the startup message. Refuses encryption.
    fn startup_message(&mut self) -> io::Result<()> {
        loop {
            let body = self.body()?;
            match body.first_chunk().map(|code| u32::from_be_bytes(*code)) {
                Some(80_877_103 | 80_877_104) => self.send(b"N")?,
                // A request to cancel.
                Some(80_877_102) => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => return Ok(()),
            }
        }
    }

    /// Reads a request, and returns its type; `None` at the end.
    fn request(&mut self) -> io::Result<Option<u8>> {
        let mut kind = [0];
        if self.stream.read(&mut kind)? == 0 {
            return Ok(None);
        }
        self.last = self.body()?;
        Ok(Some(kind[0]))
    }

    fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let mut body = vec![0; length.saturating_sub(4).min(1 << 20)];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(1 << 16) {
            self.stream.write_all(part)?;
            self.sent += part.len() as u64;
            self.most.fetch_max(self.sent, Relaxed);
        }
        Ok(())
    }

    /// Sends a message with a body of this length.
    fn long_message(&mut self, kind: u8, body: u32) -> io::Result<()> {
        self.send(&[&[kind], &(body + 4).to_be_bytes()[..]].concat())?;
        let block = vec![0; 1 << 16];
        let mut left = u64::from(body);
        while left > 0 {
            let here = left.min(block.len() as u64);
            self.send(&block[..usize::try_from(here).unwrap_or(block.len())])?;
            left -= here;
        }
        self.wait()
    }

    /// Sends a message without end.
    fn repeat(&mut self, message: &[u8]) -> io::Result<()> {
        let block = message.repeat((1_usize << 16).div_ceil(message.len()));
        loop {
            self.send(&block)?;
        }
    }

    /// Sends distinct parameters without end.
    fn parameters(&mut self) -> io::Result<()> {
        for number in 0_u64.. {
            self.send(&message(b'S', format!("parameter_{number}\0{}\0", "x".repeat(200)).as_bytes()))?;
        }
        Ok(())
    }

    /// Waits until the client closes.
    fn wait(&mut self) -> io::Result<()> {
        let mut bytes = [0; 1024];
        while self.stream.read(&mut bytes)? > 0 {}
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
}

fn notice() -> Vec<u8> {
    message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mnotice\0\0")
}

fn row(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    message(b'D', &[&[0, 1][..], &length, &vec![b'x'; bytes]].concat())
}
