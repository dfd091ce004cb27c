// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

// A price feed of the shape that oracles have: a proxy that never moves, and an aggregator behind it that does.
// Anyone may set its answer.

contract Aggregator {
    uint8 public decimals;
    bool public isBroken;
    uint80 public roundId;
    int256 public answer;
    uint256 public updatedAt;

    event AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt);

    constructor(uint8 decimals_) {
        decimals = decimals_;
    }

    // With the block's own time where `updatedAt_` is 0.
    function transmit(int256 answer_, uint256 updatedAt_) external {
        roundId++;
        answer = answer_;
        updatedAt = updatedAt_ == 0 ? block.timestamp : updatedAt_;
        emit AnswerUpdated(answer_, roundId, updatedAt);
    }

    function breakDown(bool isBroken_) external {
        isBroken = isBroken_;
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        require(!isBroken, "No data present");
        return (roundId, answer, updatedAt, updatedAt, roundId);
    }
}

contract FeedProxy {
    Aggregator public aggregator;

    constructor(Aggregator aggregator_) {
        aggregator = aggregator_;
    }

    function upgrade(Aggregator aggregator_) external {
        aggregator = aggregator_;
    }

    function decimals() external view returns (uint8) {
        return aggregator.decimals();
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return aggregator.latestRoundData();
    }
}
