// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

// What the router cannot do: swaps that stop exactly at a price, several in one transaction, flashes, and
// core positions beside the position manager's. It pays every pool out of its own balance.

interface IPool {
    function token0() external view returns (address);
    function token1() external view returns (address);
    function swap(address recipient, bool zeroForOne, int256 amountSpecified, uint160 sqrtPriceLimitX96, bytes calldata data)
        external
        returns (int256 amount0, int256 amount1);
    function flash(address recipient, uint256 amount0, uint256 amount1, bytes calldata data) external;
    function mint(address recipient, int24 tickLower, int24 tickUpper, uint128 amount, bytes calldata data)
        external
        returns (uint256 amount0, uint256 amount1);
    function burn(int24 tickLower, int24 tickUpper, uint128 amount) external returns (uint256 amount0, uint256 amount1);
}

interface IToken {
    function transfer(address to, uint256 value) external returns (bool);
    function balanceOf(address owner) external view returns (uint256);
}

contract Actor {
    struct Swap {
        address pool;
        bool zeroForOne;
        int256 amountSpecified;
        uint160 sqrtPriceLimitX96;
    }

    function swap(Swap[] calldata swaps) external {
        for (uint256 i = 0; i < swaps.length; i++) {
            Swap calldata one = swaps[i];
            IPool(one.pool).swap(address(this), one.zeroForOne, one.amountSpecified, one.sqrtPriceLimitX96, "");
        }
    }

    function flash(address pool, uint256 amount0, uint256 amount1, uint256 tip0, uint256 tip1) external {
        IPool(pool).flash(address(this), amount0, amount1, abi.encode(amount0 + tip0, amount1 + tip1));
    }

    function mint(address pool, int24 tickLower, int24 tickUpper, uint128 liquidity) external {
        IPool(pool).mint(address(this), tickLower, tickUpper, liquidity, "");
    }

    function burn(address pool, int24 tickLower, int24 tickUpper, uint128 liquidity) external {
        IPool(pool).burn(tickLower, tickUpper, liquidity);
    }

    function uniswapV3SwapCallback(int256 amount0, int256 amount1, bytes calldata) external {
        if (amount0 > 0) IToken(IPool(msg.sender).token0()).transfer(msg.sender, uint256(amount0));
        if (amount1 > 0) IToken(IPool(msg.sender).token1()).transfer(msg.sender, uint256(amount1));
    }

    function uniswapV3MintCallback(uint256 amount0, uint256 amount1, bytes calldata) external {
        if (amount0 > 0) IToken(IPool(msg.sender).token0()).transfer(msg.sender, amount0);
        if (amount1 > 0) IToken(IPool(msg.sender).token1()).transfer(msg.sender, amount1);
    }

    // Pays back what was lent, the fee, and the tip that the caller asked for (which becomes fee growth too).
    function uniswapV3FlashCallback(uint256 fee0, uint256 fee1, bytes calldata data) external {
        (uint256 back0, uint256 back1) = abi.decode(data, (uint256, uint256));
        if (back0 + fee0 > 0) IToken(IPool(msg.sender).token0()).transfer(msg.sender, back0 + fee0);
        if (back1 + fee1 > 0) IToken(IPool(msg.sender).token1()).transfer(msg.sender, back1 + fee1);
    }
}
