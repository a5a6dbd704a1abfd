//! The commands that are known by name. Others are counted as `other`, and may write.

use self::Kind::{
    BlockingRead, BlockingWrite, Client, Discard, Exec, Multi, Read, Script, Select, Session, Stream, Subscribe,
    Unsubscribe, Unwatch, Watch, Write,
};
use self::Subscription::{Channels, Patterns, Shards};

/// The kind of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subscription {
    Channels,
    Patterns,
    Shards,
}

/// What a command does to the data and to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes nothing that lasts.
    Read,
    /// May change data, or the server.
    Write,
    /// As `Read`, and may wait at the server until something happens.
    BlockingRead,
    /// As `Write`, and may wait at the server until something happens.
    BlockingWrite,
    /// May change data before it fails.
    Script,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Select,
    /// Some of its subcommands change the session.
    Client,
    /// Changes the session in a way that the pool does not restore.
    Session,
    /// The server does not reply to commands any more.
    Stream,
    Subscribe(Subscription),
    Unsubscribe(Subscription),
}

impl Kind {
    pub(super) const fn is_blocking(self) -> bool {
        matches!(self, BlockingRead | BlockingWrite)
    }

    /// Returns whether the command may change data if it is executed.
    pub(super) const fn writes(self) -> bool {
        matches!(self, Write | BlockingWrite | Script)
    }
}

/// The number of commands.
pub(super) const COUNT: usize = COMMANDS.len();

/// The index of a command in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command(u16);

impl Command {
    /// Returns the command of this name, in capitals or not.
    pub(super) fn find(name: &[u8]) -> Option<Self> {
        let mut capitals = [0; MAX_NAME];
        let capitals = capitals.get_mut(..name.len())?;
        capitals.copy_from_slice(name);
        capitals.make_ascii_uppercase();
        let index = COMMANDS.binary_search_by(|(name, _)| name.as_bytes().cmp(capitals)).ok()?;
        u16::try_from(index).ok().map(Self)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) fn name(self) -> &'static str {
        COMMANDS[self.index()].0
    }

    pub(super) fn kind(self) -> Kind {
        COMMANDS[self.index()].1
    }
}

const MAX_NAME: usize = 20;

/// The names, sorted.
const COMMANDS: &[(&str, Kind)] = &[
    ("ACL", Write),
    ("APPEND", Write),
    ("ASKING", Session),
    ("AUTH", Session),
    ("BGREWRITEAOF", Write),
    ("BGSAVE", Write),
    ("BITCOUNT", Read),
    ("BITFIELD", Write),
    ("BITFIELD_RO", Read),
    ("BITOP", Write),
    ("BITPOS", Read),
    ("BLMOVE", BlockingWrite),
    ("BLMPOP", BlockingWrite),
    ("BLPOP", BlockingWrite),
    ("BRPOP", BlockingWrite),
    ("BRPOPLPUSH", BlockingWrite),
    ("BZMPOP", BlockingWrite),
    ("BZPOPMAX", BlockingWrite),
    ("BZPOPMIN", BlockingWrite),
    ("CLIENT", Client),
    ("CLUSTER", Read),
    ("COMMAND", Read),
    ("CONFIG", Write),
    ("COPY", Write),
    ("DBSIZE", Read),
    ("DEBUG", Write),
    ("DECR", Write),
    ("DECRBY", Write),
    ("DEL", Write),
    ("DISCARD", Discard),
    ("DUMP", Read),
    ("ECHO", Read),
    ("EVAL", Script),
    ("EVALSHA", Script),
    ("EVALSHA_RO", Read),
    ("EVAL_RO", Read),
    ("EXEC", Exec),
    ("EXISTS", Read),
    ("EXPIRE", Write),
    ("EXPIREAT", Write),
    ("EXPIRETIME", Read),
    ("FAILOVER", Write),
    ("FCALL", Script),
    ("FCALL_RO", Read),
    ("FLUSHALL", Write),
    ("FLUSHDB", Write),
    ("FUNCTION", Write),
    ("GEOADD", Write),
    ("GEODIST", Read),
    ("GEOHASH", Read),
    ("GEOPOS", Read),
    ("GEORADIUS", Write),
    ("GEORADIUSBYMEMBER", Write),
    ("GEORADIUSBYMEMBER_RO", Read),
    ("GEORADIUS_RO", Read),
    ("GEOSEARCH", Read),
    ("GEOSEARCHSTORE", Write),
    ("GET", Read),
    ("GETBIT", Read),
    ("GETDEL", Write),
    ("GETEX", Write),
    ("GETRANGE", Read),
    ("GETSET", Write),
    ("HDEL", Write),
    ("HELLO", Session),
    ("HEXISTS", Read),
    ("HEXPIRE", Write),
    ("HEXPIREAT", Write),
    ("HEXPIRETIME", Read),
    ("HGET", Read),
    ("HGETALL", Read),
    ("HGETDEL", Write),
    ("HGETEX", Write),
    ("HINCRBY", Write),
    ("HINCRBYFLOAT", Write),
    ("HKEYS", Read),
    ("HLEN", Read),
    ("HMGET", Read),
    ("HMSET", Write),
    ("HPERSIST", Write),
    ("HPEXPIRE", Write),
    ("HPEXPIREAT", Write),
    ("HPEXPIRETIME", Read),
    ("HPTTL", Read),
    ("HRANDFIELD", Read),
    ("HSCAN", Read),
    ("HSET", Write),
    ("HSETEX", Write),
    ("HSETNX", Write),
    ("HSTRLEN", Read),
    ("HTTL", Read),
    ("HVALS", Read),
    ("INCR", Write),
    ("INCRBY", Write),
    ("INCRBYFLOAT", Write),
    ("INFO", Read),
    ("KEYS", Read),
    ("LASTSAVE", Read),
    ("LATENCY", Read),
    ("LCS", Read),
    ("LINDEX", Read),
    ("LINSERT", Write),
    ("LLEN", Read),
    ("LMOVE", Write),
    ("LMPOP", Write),
    ("LOLWUT", Read),
    ("LPOP", Write),
    ("LPOS", Read),
    ("LPUSH", Write),
    ("LPUSHX", Write),
    ("LRANGE", Read),
    ("LREM", Write),
    ("LSET", Write),
    ("LTRIM", Write),
    ("MEMORY", Read),
    ("MGET", Read),
    ("MIGRATE", Write),
    ("MODULE", Write),
    ("MONITOR", Stream),
    ("MOVE", Write),
    ("MSET", Write),
    ("MSETNX", Write),
    ("MULTI", Multi),
    ("OBJECT", Read),
    ("PERSIST", Write),
    ("PEXPIRE", Write),
    ("PEXPIREAT", Write),
    ("PEXPIRETIME", Read),
    ("PFADD", Write),
    ("PFCOUNT", Read),
    ("PFMERGE", Write),
    ("PING", Read),
    ("PSETEX", Write),
    ("PSUBSCRIBE", Subscribe(Patterns)),
    ("PSYNC", Stream),
    ("PTTL", Read),
    ("PUBLISH", Write),
    ("PUBSUB", Read),
    ("PUNSUBSCRIBE", Unsubscribe(Patterns)),
    ("QUIT", Session),
    ("RANDOMKEY", Read),
    ("READONLY", Session),
    ("READWRITE", Session),
    ("RENAME", Write),
    ("RENAMENX", Write),
    ("REPLICAOF", Write),
    ("RESET", Session),
    ("RESTORE", Write),
    ("ROLE", Read),
    ("RPOP", Write),
    ("RPOPLPUSH", Write),
    ("RPUSH", Write),
    ("RPUSHX", Write),
    ("SADD", Write),
    ("SAVE", Write),
    ("SCAN", Read),
    ("SCARD", Read),
    ("SCRIPT", Write),
    ("SDIFF", Read),
    ("SDIFFSTORE", Write),
    ("SELECT", Select),
    ("SET", Write),
    ("SETBIT", Write),
    ("SETEX", Write),
    ("SETNX", Write),
    ("SETRANGE", Write),
    ("SHUTDOWN", Write),
    ("SINTER", Read),
    ("SINTERCARD", Read),
    ("SINTERSTORE", Write),
    ("SISMEMBER", Read),
    ("SLAVEOF", Write),
    ("SLOWLOG", Read),
    ("SMEMBERS", Read),
    ("SMISMEMBER", Read),
    ("SMOVE", Write),
    ("SORT", Write),
    ("SORT_RO", Read),
    ("SPOP", Write),
    ("SPUBLISH", Write),
    ("SRANDMEMBER", Read),
    ("SREM", Write),
    ("SSCAN", Read),
    ("SSUBSCRIBE", Subscribe(Shards)),
    ("STRLEN", Read),
    ("SUBSCRIBE", Subscribe(Channels)),
    ("SUBSTR", Read),
    ("SUNION", Read),
    ("SUNIONSTORE", Write),
    ("SUNSUBSCRIBE", Unsubscribe(Shards)),
    ("SWAPDB", Write),
    ("SYNC", Stream),
    ("TIME", Read),
    ("TOUCH", Write),
    ("TTL", Read),
    ("TYPE", Read),
    ("UNLINK", Write),
    ("UNSUBSCRIBE", Unsubscribe(Channels)),
    ("UNWATCH", Unwatch),
    ("WAIT", BlockingRead),
    ("WAITAOF", BlockingRead),
    ("WATCH", Watch),
    ("XACK", Write),
    ("XADD", Write),
    ("XAUTOCLAIM", Write),
    ("XCLAIM", Write),
    ("XDEL", Write),
    ("XGROUP", Write),
    ("XINFO", Read),
    ("XLEN", Read),
    ("XPENDING", Read),
    ("XRANGE", Read),
    ("XREAD", BlockingRead),
    ("XREADGROUP", BlockingWrite),
    ("XREVRANGE", Read),
    ("XSETID", Write),
    ("XTRIM", Write),
    ("ZADD", Write),
    ("ZCARD", Read),
    ("ZCOUNT", Read),
    ("ZDIFF", Read),
    ("ZDIFFSTORE", Write),
    ("ZINCRBY", Write),
    ("ZINTER", Read),
    ("ZINTERCARD", Read),
    ("ZINTERSTORE", Write),
    ("ZLEXCOUNT", Read),
    ("ZMPOP", Write),
    ("ZMSCORE", Read),
    ("ZPOPMAX", Write),
    ("ZPOPMIN", Write),
    ("ZRANDMEMBER", Read),
    ("ZRANGE", Read),
    ("ZRANGEBYLEX", Read),
    ("ZRANGEBYSCORE", Read),
    ("ZRANGESTORE", Write),
    ("ZRANK", Read),
    ("ZREM", Write),
    ("ZREMRANGEBYLEX", Write),
    ("ZREMRANGEBYRANK", Write),
    ("ZREMRANGEBYSCORE", Write),
    ("ZREVRANGE", Read),
    ("ZREVRANGEBYLEX", Read),
    ("ZREVRANGEBYSCORE", Read),
    ("ZREVRANK", Read),
    ("ZSCAN", Read),
    ("ZSCORE", Read),
    ("ZUNION", Read),
    ("ZUNIONSTORE", Write),
];

#[test]
fn names_are_sorted_and_found() {
    assert!(COMMANDS.is_sorted_by_key(|(name, _)| name));
    for (name, kind) in COMMANDS {
        let found = Command::find(name.to_ascii_lowercase().as_bytes()).unwrap();
        assert_eq!((found.name(), found.kind()), (*name, *kind));
    }
    assert_eq!(Command::find(b"JSON.GET"), None);
    assert_eq!(Command::find(&[b'A'; 300]), None);
}
