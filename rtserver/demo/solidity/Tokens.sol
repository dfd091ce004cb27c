// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

// The ERC-20s of the local chain. Anyone may mint: the chain is a toy shop for honest contracts.

contract Token {
    string public name;
    string public symbol;
    uint8 public decimals;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    constructor(string memory name_, string memory symbol_, uint8 decimals_) {
        name = name_;
        symbol = symbol_;
        decimals = decimals_;
    }

    function mint(address to, uint256 value) external {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function mintMany(address[] calldata to, uint256 value) external {
        totalSupply += value * to.length;
        for (uint256 i = 0; i < to.length; i++) {
            balanceOf[to[i]] += value;
            emit Transfer(address(0), to[i], value);
        }
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        _transfer(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - value;
        _transfer(from, to, value);
        return true;
    }

    function _transfer(address from, address to, uint256 value) internal virtual {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}

// Keeps a part of every transfer, which its issuer may change: a payment arrives smaller than it left.
contract FeeToken is Token {
    uint256 public feeBps;

    constructor(string memory name_, string memory symbol_, uint8 decimals_) Token(name_, symbol_, decimals_) {}

    function setFeeBps(uint256 feeBps_) external {
        feeBps = feeBps_;
    }

    function _transfer(address from, address to, uint256 value) internal override {
        uint256 fee = value * feeBps / 10000;
        balanceOf[from] -= value;
        balanceOf[to] += value - fee;
        totalSupply -= fee;
        emit Transfer(from, to, value - fee);
        emit Transfer(from, address(0), fee);
    }
}

// Every balance grows or shrinks at its issuer's word, that of a pool, too: holders own shares of the supply.
contract RebasingToken {
    string public name;
    string public symbol;
    uint8 public decimals;
    uint256 public scaleBps = 10000;
    uint256 private totalShares;
    mapping(address => uint256) private shares;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    constructor(string memory name_, string memory symbol_, uint8 decimals_) {
        name = name_;
        symbol = symbol_;
        decimals = decimals_;
    }

    function rebase(uint256 scaleBps_) external {
        scaleBps = scaleBps_;
    }

    function totalSupply() external view returns (uint256) {
        return totalShares * scaleBps / 10000;
    }

    function balanceOf(address owner) external view returns (uint256) {
        return shares[owner] * scaleBps / 10000;
    }

    function mintMany(address[] calldata to, uint256 value) external {
        for (uint256 i = 0; i < to.length; i++) {
            uint256 more = value * 10000 / scaleBps;
            totalShares += more;
            shares[to[i]] += more;
            emit Transfer(address(0), to[i], value);
        }
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        _transfer(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - value;
        _transfer(from, to, value);
        return true;
    }

    // Rounded up, so that nobody is paid less than was promised.
    function _transfer(address from, address to, uint256 value) private {
        uint256 moved = (value * 10000 + scaleBps - 1) / scaleBps;
        shares[from] -= moved;
        shares[to] += moved;
        emit Transfer(from, to, value);
    }
}

// What metadata looks like in the wild: each call answers one word, many bytes, or reverts.
contract OddToken {
    bytes private nameAnswer;
    bytes private symbolAnswer;
    bytes private decimalsAnswer;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    // An empty answer makes that call revert; anything else is returned byte for byte.
    constructor(bytes memory nameAnswer_, bytes memory symbolAnswer_, bytes memory decimalsAnswer_) {
        nameAnswer = nameAnswer_;
        symbolAnswer = symbolAnswer_;
        decimalsAnswer = decimalsAnswer_;
    }

    function name() external view {
        _answer(nameAnswer);
    }

    function symbol() external view {
        _answer(symbolAnswer);
    }

    function decimals() external view {
        _answer(decimalsAnswer);
    }

    function _answer(bytes memory answer) private pure {
        require(answer.length > 0, "no metadata");
        assembly {
            return(add(answer, 32), mload(answer))
        }
    }

    function mint(address to, uint256 value) external {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function mintMany(address[] calldata to, uint256 value) external {
        totalSupply += value * to.length;
        for (uint256 i = 0; i < to.length; i++) {
            balanceOf[to[i]] += value;
            emit Transfer(address(0), to[i], value);
        }
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        _transfer(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (allowed != type(uint256).max) allowance[from][msg.sender] = allowed - value;
        _transfer(from, to, value);
        return true;
    }

    function _transfer(address from, address to, uint256 value) private {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}
