//! The parts that messages of nftables have in common: batches, chains, sets, rules and expressions.

use std::io;

use crate::netlink::{APPEND, CREATE, Message, Part, Socket, attribute, find, nested, number, text};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const DELETE_CHAIN: u16 = SUBSYSTEM << 8 | 5;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const GET_ELEMENT: u16 = SUBSYSTEM << 8 | 13;
const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;
const GET_GENERATION: u16 = SUBSYSTEM << 8 | 16;
/// Length of the part that all messages begin with.
const GENERIC_BYTES: usize = 4;
/// The generation that a batch is for.
const BATCH_GENERATION: u16 = 1;
/// Elements in one attribute, whose length has 16 bits.
const ELEMENTS_AT_ONCE: usize = 250;
const POLICY_ACCEPT: u32 = 1;
const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
const SET_MAP: u32 = 0x8;
/// The register that verdicts are in.
const VERDICT_REGISTER: u32 = 0;
/// The register that these rules use.
const REGISTER: u32 = 1;
const VERDICT_JUMP: i32 = -3;
const VERDICT_GOTO: i32 = -4;
const META_MARK: u32 = 3;
const META_PROTOCOL: u32 = 16;
const SOCKET_TRANSPARENT: u32 = 0;

/// The family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    Ip = 2,
    /// IPv6.
    Ip6 = 10,
}

/// The packets that a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Packets of one address family.
    One(Family),
    /// Packets of IPv4 and of IPv6.
    Both,
}

impl Scope {
    /// The part that all messages about such a table begin with.
    fn header(self) -> [u8; GENERIC_BYTES] {
        let number = match self {
            Self::One(family) => family as u8,
            Self::Both => 1,
        };
        [number, 0, 0, 0]
    }
}

impl From<Family> for Scope {
    fn from(family: Family) -> Self {
        Self::One(family)
    }
}

/// The type of keys and values of sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// A number in the order of bytes of this machine.
    Integer,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A protocol of IP.
    Protocol,
    /// A port.
    Port,
    /// A chain to go to.
    Verdict,
}

impl DataType {
    fn number(self) -> u32 {
        match self {
            Self::Integer => 4,
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Verdict => 0xffff_ff00,
        }
    }

    fn len(self) -> u32 {
        match self {
            Self::Integer | Self::Ipv4 => 4,
            Self::Ipv6 | Self::Verdict => 16,
            Self::Protocol => 1,
            Self::Port => 2,
        }
    }
}

/// A value of an element, or of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Bytes in the order of the network.
    Bytes(Vec<u8>),
    /// Goes to a chain and does not come back.
    Goto(String),
}

impl Value {
    fn encode(&self, kind: u16) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => nested(kind, &[attribute(1, bytes)]),
            Self::Goto(chain) => nested(kind, &[verdict(VERDICT_GOTO, chain)]),
        }
    }
}

fn verdict(code: i32, chain: &str) -> Vec<u8> {
    nested(2, &[attribute(1, &code.to_be_bytes()), text(2, chain)])
}

/// The hook of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// The number of the hook; 0 is `prerouting`, 3 is `output`.
    pub hook: u32,
    /// Its place among the chains there.
    pub priority: i32,
}

/// The changes of one table, which the kernel makes at one moment.
#[derive(Debug)]
pub struct Batch<'a> {
    scope: Scope,
    table: &'a str,
    messages: Vec<Message>,
    /// The last set without a name; each has a number in its batch.
    anonymous: u32,
}

impl<'a> Batch<'a> {
    /// No changes yet.
    #[must_use]
    pub fn new(scope: impl Into<Scope>, table: &'a str) -> Self {
        Self { scope: scope.into(), table, messages: Vec::new(), anonymous: 0 }
    }

    /// The messages of the changes.
    #[must_use]
    pub fn into_messages(self) -> Vec<Message> {
        self.messages
    }

    fn add(&mut self, kind: u16, flags: u16, attributes: &[Vec<u8>]) {
        let message = Message::new(kind, flags, &self.scope.header()).with(&text(1, self.table));
        self.messages.push(message.with(&attributes.concat()));
    }

    /// Removes the table with all that is in it, if it is there.
    pub fn remove_table(&mut self) {
        self.add(NEW_TABLE, CREATE, &[]);
        self.add(DELETE_TABLE, 0, &[]);
    }

    /// Makes the table.
    pub fn add_table(&mut self) {
        self.add(NEW_TABLE, CREATE, &[]);
    }

    /// Makes a chain; with a hook, packets come by it.
    pub fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut attributes = vec![text(3, name)];
        if let Some(hook) = hook {
            let place = [number(1, hook.hook), attribute(2, &hook.priority.to_be_bytes())];
            attributes.extend([nested(4, &place), number(5, POLICY_ACCEPT), text(7, hook.kind)]);
        }
        self.add(NEW_CHAIN, CREATE, &attributes);
    }

    /// Removes the rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        self.add(DELETE_RULE, 0, &[text(2, name)]);
    }

    /// Removes a chain that has no rules and that no rule or element leads to.
    pub fn remove_chain(&mut self, name: &str) {
        self.add(DELETE_CHAIN, 0, &[text(3, name)]);
    }

    /// Adds a rule behind the others.
    pub fn add_rule(&mut self, chain: &str, expressions: &[Vec<u8>]) {
        self.add(NEW_RULE, CREATE | APPEND, &[text(2, chain), nested(4, expressions)]);
    }

    /// Makes a set, or a map if there is a type of values.
    pub fn add_set(&mut self, name: &str, key: DataType, value: Option<DataType>) {
        self.add_set_with(name, key, value, 0);
    }

    fn add_set_with(&mut self, name: &str, key: DataType, value: Option<DataType>, flags: u32) {
        self.anonymous += 1;
        let flags = if value.is_some() { flags | SET_MAP } else { flags };
        let mut attributes = vec![text(2, name), number(3, flags), number(4, key.number()), number(5, key.len())];
        if let Some(value) = value {
            attributes.extend([number(6, value.number()), number(7, value.len())]);
        }
        attributes.push(number(10, self.anonymous));
        self.add(NEW_SET, CREATE, &attributes);
    }

    /// Makes a map without a name, which goes with the rule that uses it. Returns its number in the batch.
    pub fn add_anonymous_map(&mut self, key: DataType, value: DataType, elements: &[(Vec<u8>, Value)]) -> u32 {
        self.add_set_with(ANONYMOUS_MAP, key, Some(value), SET_ANONYMOUS | SET_CONSTANT);
        let id = self.anonymous;
        self.elements(NEW_ELEMENT, CREATE, ANONYMOUS_MAP, Some(id), elements);
        id
    }

    /// Adds elements to a map.
    pub fn add_elements(&mut self, set: &str, elements: &[(Vec<u8>, Value)]) {
        self.elements(NEW_ELEMENT, CREATE, set, None, elements);
    }

    /// Adds keys to a set.
    pub fn add_keys(&mut self, set: &str, keys: &[Vec<u8>]) {
        self.keys(NEW_ELEMENT, CREATE, set, keys);
    }

    /// Removes keys, which are there, from a set or a map.
    pub fn remove_keys(&mut self, set: &str, keys: &[Vec<u8>]) {
        self.keys(DELETE_ELEMENT, 0, set, keys);
    }

    fn keys(&mut self, kind: u16, flags: u16, set: &str, keys: &[Vec<u8>]) {
        let encoded: Vec<_> = keys.iter().map(|key| nested(1, &[nested(1, &[attribute(1, key)])])).collect();
        self.send_elements(kind, flags, set, None, &encoded);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, id: Option<u32>, elements: &[(Vec<u8>, Value)]) {
        let encode = |(key, value): &(Vec<u8>, Value)| nested(1, &[nested(1, &[attribute(1, key)]), value.encode(2)]);
        let encoded: Vec<_> = elements.iter().map(encode).collect();
        self.send_elements(kind, flags, set, id, &encoded);
    }

    fn send_elements(&mut self, kind: u16, flags: u16, set: &str, id: Option<u32>, encoded: &[Vec<u8>]) {
        for some in encoded.chunks(ELEMENTS_AT_ONCE) {
            let mut attributes = vec![text(2, set)];
            attributes.extend(id.map(|id| number(4, id)));
            attributes.push(nested(3, some));
            self.add(kind, flags, &attributes);
        }
    }
}

/// The kernel puts a number for `%d`.
const ANONYMOUS_MAP: &str = "__map%d";

/// The tables of nftables in a network namespace.
#[derive(Debug)]
pub struct Tables {
    /// The socket, for other parts of netfilter too.
    pub socket: Socket,
}

impl Tables {
    /// Of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(Part::Netfilter)? })
    }

    /// The number of the last change, by anybody. Each change is the next number.
    ///
    /// # Errors
    /// The kernel's: it has no nftables, or does not permit it.
    pub fn generation(&mut self) -> io::Result<u32> {
        let body = self.socket.get(&Message::new(GET_GENERATION, 0, &[0; GENERIC_BYTES]))?;
        let id = find(body.get(GENERIC_BYTES..).unwrap_or_default(), 1).and_then(|id| id.first_chunk().copied());
        id.map(u32::from_be_bytes).ok_or_else(|| io::Error::other("nftables told no generation"))
    }

    /// Makes changes at one moment, unless somebody has made others since this generation. Returns the next generation.
    ///
    /// # Errors
    /// The kernel's; `Interrupted` when there were other changes.
    pub fn change(&mut self, generation: u32, changes: Vec<Message>) -> io::Result<u32> {
        if changes.is_empty() {
            return Ok(generation);
        }
        match self.batch(&number(BATCH_GENERATION, generation), changes) {
            // ERESTART is no error that other calls know.
            Err(e) if e.raw_os_error() == Some(RESTART) => Err(io::ErrorKind::Interrupted.into()),
            done => done.map(|()| generation.checked_add(1).unwrap_or(1)),
        }
    }

    /// Makes changes at one moment, whatever others have changed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn change_now(&mut self, changes: Vec<Message>) -> io::Result<()> {
        self.batch(&[], changes)
    }

    fn batch(&mut self, condition: &[u8], mut changes: Vec<Message>) -> io::Result<()> {
        let Some(last) = changes.pop() else { return Ok(()) };
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let mark = |kind| Message::new(kind, 0, &[0, 0, high, low]);
        let mut all = vec![mark(BATCH_BEGIN).with(condition)];
        all.extend(changes);
        all.extend([last.asking(), mark(BATCH_END)]);
        self.socket.whole(&all)
    }

    /// The names of the tables of this kind.
    ///
    /// # Errors
    /// The kernel's.
    pub fn names(&mut self, scope: Scope) -> io::Result<Vec<String>> {
        let bodies = self.socket.list(&Message::new(GET_TABLE, 0, &scope.header()))?;
        let name = |body: &Vec<u8>| {
            let name = find(body.get(GENERIC_BYTES..)?, 1)?;
            Some(String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned())
        };
        Ok(bodies.iter().filter_map(name).collect())
    }

    /// The chains and expressions of a table's rules, as the kernel tells them; nothing without the table.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rules(&mut self, scope: Scope, table: &str) -> io::Result<Vec<u8>> {
        let asked = Message::new(GET_RULE, 0, &scope.header()).with(&text(1, table));
        let bodies = match self.socket.list(&asked) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bodies => bodies?,
        };
        let mut rules = Vec::new();
        for body in bodies {
            let body = body.get(GENERIC_BYTES..).unwrap_or_default();
            // A kernel before 4.12 lists the rules of all tables.
            if find(body, 1).is_some_and(|name| name.strip_suffix(&[0]).unwrap_or(name) == table.as_bytes()) {
                let told = crate::netlink::attributes(body).filter(|(kind, _)| matches!(kind, 2 | 4));
                told.for_each(|(_, value)| rules.extend_from_slice(value));
            }
        }
        Ok(rules)
    }

    /// Whether there is a table of this name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has(&mut self, family: Family, table: &str) -> io::Result<bool> {
        let asked = Message::new(GET_TABLE, 0, &Scope::from(family).header()).with(&text(1, table));
        match self.socket.get(&asked) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The elements of a map: keys and values; nothing if it is not there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let asked =
            Message::new(GET_ELEMENT, 0, &Scope::from(family).header()).with(&text(1, table)).with(&text(2, set));
        let bodies = match self.socket.list(&asked) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bodies => bodies?,
        };
        let mut elements = Vec::new();
        for body in bodies {
            let list = find(body.get(GENERIC_BYTES..).unwrap_or_default(), 3).unwrap_or_default();
            for (_, element) in crate::netlink::attributes(list) {
                let part = |kind| crate::netlink::find_in(element, &[kind, 1]).map(<[u8]>::to_vec);
                elements.extend(part(1).zip(part(2)));
            }
        }
        Ok(elements)
    }
}

const RESTART: i32 = 85;

/// Expressions of rules, which work on one register.
pub mod expression {
    use super::{
        Family, META_MARK, META_PROTOCOL, REGISTER, SOCKET_TRANSPARENT, VERDICT_JUMP, VERDICT_REGISTER, attribute,
        nested, number, text, verdict,
    };

    fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
        nested(1, &[text(1, name), nested(2, data)])
    }

    fn payload(base: u32, offset: u32, len: u32) -> Vec<u8> {
        expression("payload", &[number(1, REGISTER), number(2, base), number(3, offset), number(4, len)])
    }

    /// Loads the destination address.
    #[must_use]
    pub fn destination(family: Family) -> Vec<u8> {
        match family {
            Family::Ip => payload(1, 16, 4),
            Family::Ip6 => payload(1, 24, 16),
        }
    }

    /// Loads the destination port, of TCP and UDP.
    #[must_use]
    pub fn destination_port() -> Vec<u8> {
        payload(2, 2, 2)
    }

    /// Loads the protocol of IP.
    #[must_use]
    pub fn protocol() -> Vec<u8> {
        expression("meta", &[number(1, REGISTER), number(2, META_PROTOCOL)])
    }

    /// Loads the mark of the packet.
    #[must_use]
    pub fn mark() -> Vec<u8> {
        expression("meta", &[number(1, REGISTER), number(2, META_MARK)])
    }

    /// Gives the packet the mark in the register.
    #[must_use]
    pub fn set_mark() -> Vec<u8> {
        expression("meta", &[number(2, META_MARK), number(3, REGISTER)])
    }

    /// Loads whether the packet is for a transparent socket: 1 or 0; goes on only if it is for a socket.
    #[must_use]
    pub fn transparent() -> Vec<u8> {
        expression("socket", &[number(1, SOCKET_TRANSPARENT), number(2, REGISTER)])
    }

    /// Loads these bytes.
    #[must_use]
    pub fn value(bytes: &[u8]) -> Vec<u8> {
        expression("immediate", &[number(1, REGISTER), nested(2, &[attribute(1, bytes)])])
    }

    /// Goes on if the register has these bytes.
    #[must_use]
    pub fn is(bytes: &[u8]) -> Vec<u8> {
        expression("cmp", &[number(1, REGISTER), number(2, 0), nested(3, &[attribute(1, bytes)])])
    }

    /// Loads a random number below this one.
    #[must_use]
    pub fn random(below: u32) -> Vec<u8> {
        expression("numgen", &[number(1, REGISTER), number(2, below), number(3, 1), number(4, 0)])
    }

    /// Goes on if the register is in a set.
    #[must_use]
    pub fn is_in(set: &str) -> Vec<u8> {
        expression("lookup", &[text(1, set), number(2, REGISTER)])
    }

    /// Goes on, with the value of the register, if a map has one. The number is that of a map without a name.
    #[must_use]
    pub fn map(set: Option<&str>, anonymous: u32) -> Vec<u8> {
        let mut data = vec![text(1, set.unwrap_or(super::ANONYMOUS_MAP)), number(2, REGISTER), number(3, REGISTER)];
        if set.is_none() {
            data.push(number(4, anonymous));
        }
        expression("lookup", &data)
    }

    /// Goes where a map leads.
    #[must_use]
    pub fn go_by(map: &str) -> Vec<u8> {
        expression("lookup", &[text(1, map), number(2, REGISTER), number(3, VERDICT_REGISTER)])
    }

    /// Goes to a chain, and comes back.
    #[must_use]
    pub fn jump(chain: &str) -> Vec<u8> {
        expression("immediate", &[number(1, VERDICT_REGISTER), nested(2, &[verdict(VERDICT_JUMP, chain)])])
    }

    /// Sends the connection to the address in the register.
    #[must_use]
    pub fn to_address(family: Family) -> Vec<u8> {
        expression("nat", &[number(1, 1), number(2, family as u32), number(3, REGISTER)])
    }

    /// Sends the connection to the port in the register.
    #[must_use]
    pub fn to_port(family: Family) -> Vec<u8> {
        expression("nat", &[number(1, 1), number(2, family as u32), number(5, REGISTER)])
    }

    /// Resets a connection of TCP.
    #[must_use]
    pub fn reset() -> Vec<u8> {
        expression("reject", &[number(1, 1), attribute(2, &[0])])
    }

    /// Answers that the host cannot be reached.
    #[must_use]
    pub fn unreachable(family: Family) -> Vec<u8> {
        let code = match family {
            Family::Ip => 1,
            Family::Ip6 => 3,
        };
        expression("reject", &[number(1, 0), attribute(2, &[code])])
    }
}
