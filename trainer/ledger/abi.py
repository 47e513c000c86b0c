"""The part of the market's interface that a payment hangs on, written as Solidity has it.

contracts/abi holds all of it; tests/trainer/ledger/test_ledger_abi.py compares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from trainer.protocol.errors import HyperGPUError

JOB_EVENTS = """
JobCreated(uint256 indexed jobId, address indexed requester, bytes32 indexed spec, uint128 escrow, uint96 maxRate)
JobFunded(uint256 indexed jobId, address indexed from, uint128 amount, uint128 escrow)
BidTaken(uint256 indexed jobId, uint32 indexed nodeId, uint128 rate, uint64 capacity)
ContributionRecorded(uint256 indexed jobId, uint64 indexed round, uint32 indexed nodeId, uint64 units, bytes32 base, bytes32 artifact)
RecordLapsed(uint256 indexed jobId, uint64 indexed round, uint32 indexed nodeId)
RecordDropped(uint256 indexed jobId, uint64 indexed round, uint32 indexed nodeId)
ContributionSettled(uint256 indexed jobId, uint64 indexed round, uint32 indexed nodeId, uint64 units, uint16 quality, uint128 amount, bytes32 artifact)
RoundSettled(uint256 indexed jobId, uint64 indexed round, uint32 batch, bool last, bytes32 base, uint32 receipts, uint128 total, bytes32 evidence, uint32 epoch, uint16 attestors)
RoundAccepted(uint256 indexed jobId, uint64 indexed round)
JobClosed(uint256 indexed jobId, uint64 rounds, uint128 spent, uint128 refund)
"""  # noqa: E501
CASE_EVENTS = """
CreditAwarded(uint256 indexed caseId, uint256 indexed jobId, uint32 indexed nodeId, uint64 round, uint128 amount)
NodeSlashed(uint32 indexed nodeId, uint256 indexed caseId, uint256 indexed jobId, uint128 fromCredit, uint128 fromStake, uint128 fromUnbonding, uint128 fromInsurance, uint128 restitution, address challenger, uint128 toChallenger, uint128 toInsurance)
"""  # noqa: E501
SIGNER_EVENTS = """
NodeRegistered(uint32 indexed nodeId, address indexed operator, address indexed hotKey, uint64 expiresAt)
HotKeyDelegated(uint32 indexed nodeId, address indexed hotKey, uint64 expiresAt)
NodeRetired(uint32 indexed nodeId)
EpochBegun(uint32 indexed epoch, address[] members, uint8 quorum)
TermsChanged((uint128,uint64,uint64,uint64,uint64,uint16) previous, (uint128,uint64,uint64,uint64,uint64,uint16) current)
Paused(uint64 newJobsUntil, uint64 settlementUntil)
Unpaused()
"""
VIEWS = """
getJob(uint256 jobId) returns (address requester, bytes32 spec, uint128 escrow, uint128 spent, uint128 reserved, uint32 records, uint96 maxRate, uint64 round, uint32 batch, uint32 lastNode, uint64 exitAvailableAt, bool closed)
getRound(uint256 jobId, uint64 round) returns (bytes26 digest, uint40 settledAt, bool accepted)
keyGoodUntil(uint32 nodeId, address hotKey) returns (uint64 time)
getSeat(uint256 jobId, uint32 nodeId) returns (uint96 rate, uint48 capacity, uint48 recordedUnits, uint32 recordedRound, bool claimed)
getEpoch(uint32 epoch) returns (address[] members, uint8 quorum, uint64 goodUntil)
pausedUntil() returns (uint64 newJobs, uint64 settlement)
registry() returns (address at)
court() returns (address at)
jobCount() returns (uint256 count)
"""  # noqa: E501
ERRORS = """
AlreadyPaid(uint256 jobId, uint64 round, uint32 nodeId)
EpochNotGood(uint32 epoch, uint64 goodUntil)
HotKeyExpired(uint32 nodeId, uint64 expiresAt)
InsufficientEscrow(uint256 jobId, uint256 required, uint256 available)
InvalidAttestation(uint8 member, address recovered)
InvalidMember(uint8 member, uint256 size)
InvalidReceiptSignature(uint32 nodeId, address recovered)
InvalidReceiptsLength(uint256 length)
InvalidScoresLength(uint8 member, uint256 length, uint256 expected)
IsPaused(uint64 until)
JobIsClosed(uint256 jobId)
NodesOutOfOrder(uint256 jobId, uint64 round, uint32 previous, uint32 nodeId)
NotSeated(uint256 jobId, uint32 nodeId)
QualityAboveMax(uint32 nodeId, uint16 quality)
QuorumNotReached(uint256 opened, uint256 quorum)
UnexpectedBatch(uint256 jobId, uint64 round, uint32 batch, uint64 expectedRound, uint32 expectedBatch)
UnitsAboveCapacity(uint32 nodeId, uint64 units, uint64 capacity)
UnknownJob(uint256 jobId)
"""
UNREADABLE = (DecodingError, OverflowError, ValueError)
"""What eth_abi raises on hostile bytes."""
LINE = re.compile(r"^(\w+)\((.*?)\)(?: returns \((.*)\))?$", re.MULTILINE)
PARAMETER = re.compile(r"(\([^)]*\)|\w+)((?:\[\])?)( indexed)? (\w+)")


@dataclass(frozen=True, slots=True)
class Parameter:
    kind: str
    name: str
    indexed: bool


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    parameters: tuple[Parameter, ...]

    @property
    def topic(self) -> str:
        return "0x" + keccak(text=signature(self.name, self.parameters)).hex()

    def decode(self, topics: Sequence[str], data: str) -> dict[str, Any]:
        """Values by name: ints, bools, and 0x-hex. Raises HyperGPUError `abi.mismatch`."""
        indexed = [parameter for parameter in self.parameters if parameter.indexed]
        body = [parameter for parameter in self.parameters if not parameter.indexed]
        values = unpack(self.name, indexed, b"".join(unhex(topic) for topic in topics[1:])) | unpack(self.name, body, unhex(data))
        return {parameter.name: values[parameter.name] for parameter in self.parameters}


@dataclass(frozen=True, slots=True)
class View:
    name: str
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]

    def call(self, *args: Any) -> str:
        """Calldata as 0x-hex."""
        body = encode([parameter.kind for parameter in self.inputs], args)
        return "0x" + (keccak(text=signature(self.name, self.inputs))[:4] + body).hex()

    def decode(self, answer: str) -> dict[str, Any]:
        """Values by name. Raises HyperGPUError `abi.mismatch`."""
        return unpack(self.name, self.outputs, unhex(answer))


def revert_reason(data: str) -> str:
    """What `settleRound` refuses, in words: `UnexpectedBatch(jobId=7, ...)`."""
    found = ERROR.get(data[:10])
    if found is None:
        return f"reverted with {data[:10]}" if len(data) >= 10 else "reverted without a reason"
    values = unpack(found.name, found.parameters, unhex(data[10:]))
    return f"{found.name}({', '.join(f'{name}={value}' for name, value in values.items())})"


def unpack(name: str, parameters: Sequence[Parameter], data: bytes) -> dict[str, Any]:
    try:
        values = decode([parameter.kind for parameter in parameters], data)
    except UNREADABLE as error:
        text = f"{name} is not as this version knows it ({error}); is it a market of this version?"
        raise HyperGPUError("abi.mismatch", text) from error
    return {parameter.name: plain(parameter.kind, value) for parameter, value in zip(parameters, values, strict=True)}


def plain(kind: str, value: Any) -> Any:
    """Addresses checksummed, bytes as 0x-hex."""
    if kind.endswith("[]"):
        return [plain(kind[:-2], item) for item in value]
    if kind == "address":
        return to_checksum_address(value)
    return "0x" + value.hex() if isinstance(value, bytes) else value


def signature(name: str, parameters: Sequence[Parameter]) -> str:
    return f"{name}({','.join(parameter.kind for parameter in parameters)})"


def parameters(text: str) -> list[Parameter]:
    return [Parameter(kind + array, name, bool(indexed)) for kind, array, indexed, name in PARAMETER.findall(text)]


def events(text: str) -> dict[str, Event]:
    """Events by topic."""
    found = (Event(name, tuple(parameters(inner))) for name, inner, _ in LINE.findall(text))
    return {event.topic: event for event in found}


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def hexed(raw: bytes) -> str:
    return "0x" + raw.hex()


OF_JOBS = events(JOB_EVENTS)
OF_CASES = events(CASE_EVENTS)
OF_SIGNERS = events(SIGNER_EVENTS)
ERROR = {error.topic[:10]: error for error in events(ERRORS).values()}
VIEW = {name: View(name, tuple(parameters(i)), tuple(parameters(o))) for name, i, o in LINE.findall(VIEWS)}
